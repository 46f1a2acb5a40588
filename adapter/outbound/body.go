package outbound

import (
	"cmp"
	"maps"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/keycloak"
	"github.com/keytrail/keytrail/keycloak/admin"
)

// bodyOf is the request that sets the fields. A cleared field goes as an empty text:
// Keycloak takes null for "keep" (measured on 26.1.4 and 26.7.3).
func bodyOf(set adapter.Profile) admin.UserBody {
	var b admin.UserBody
	b.Username = text(set.Username)
	b.Email = text(set.Email)
	b.FirstName = text(set.FirstName)
	b.LastName = text(set.LastName)
	b.Enabled = set.Enabled.Ptr()
	b.EmailVerified = set.EmailVerified.Ptr()
	if attributes, ok := set.Attributes.Get(); ok {
		b.Attributes = attributes
	}
	if set.RequiredActions.Present() {
		actions, _ := set.RequiredActions.Get()
		b.RequiredActions = append([]string{}, actions...)
	}
	return b
}

func text(o adapter.Optional[string]) *string {
	if !o.Present() {
		return nil
	}
	v, _ := o.Get()
	return &v
}

// withAttributes completes a body that carries attributes with what the user has:
// the patch is merged into the live attributes, and the root fields that such a
// request would clear go along as they are.
func withAttributes(live keycloak.User, body admin.UserBody, patch map[string][]string) admin.UserBody {
	merged := maps.Clone(live.Attributes)
	if merged == nil {
		merged = make(map[string][]string)
	}
	maps.Copy(merged, patch)
	maps.DeleteFunc(merged, func(_ string, values []string) bool { return len(values) == 0 })
	body.Attributes = merged
	body.Username = cmp.Or(body.Username, &live.Username)
	body.Email = cmp.Or(body.Email, live.Email)
	body.FirstName = cmp.Or(body.FirstName, live.FirstName)
	body.LastName = cmp.Or(body.LastName, live.LastName)
	return body
}
