package interpret

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/keycloak"
)

// representation is a user as an admin event shows it: the request's body, whole or
// in part, never the resulting state.
type representation struct {
	fields map[string]json.RawMessage
}

func parseUser(raw json.RawMessage) (representation, error) {
	var r representation
	if len(raw) == 0 {
		return r, nil
	}
	if err := json.Unmarshal(raw, &r.fields); err != nil {
		return r, fmt.Errorf("the representation is not a user: %w", err)
	}
	return r, nil
}

func (r representation) empty() bool { return r.fields == nil }

// present reports a member that is there and not null: null keeps a field in
// Keycloak (measured on 26.1.4 and 26.7.3).
func (r representation) present(name string) bool {
	raw, ok := r.fields[name]
	return ok && string(raw) != "null"
}

// readMember reads a member into a field of the change. A member of another type than
// expected is left alone: it is Keycloak's to refuse, and the event says that it
// did not.
func readMember[T any](r representation, name string, into *adapter.Optional[T]) {
	if !r.present(name) {
		return
	}
	var v T
	if json.Unmarshal(r.fields[name], &v) == nil {
		*into = adapter.Set(v)
	}
}

// profile is what the request set. replaced is true for an update that carries
// attributes: Keycloak then takes absent e-mail, first and last name as cleared,
// and the attributes as all there are (measured on 26.1.4 and 26.7.3).
func (r representation) profile(update bool) (set adapter.Profile, inferred []string) {
	readMember(r, "username", &set.Username)
	readMember(r, "email", &set.Email)
	readMember(r, "firstName", &set.FirstName)
	readMember(r, "lastName", &set.LastName)
	readMember(r, "enabled", &set.Enabled)
	readMember(r, "emailVerified", &set.EmailVerified)
	readMember(r, "requiredActions", &set.RequiredActions)
	if !r.present("attributes") {
		return set, set.Droppable()
	}
	set.Attributes = adapter.Set(r.attributes())
	if update {
		for _, f := range []struct {
			name string
			into *adapter.Optional[string]
		}{{"email", &set.Email}, {"firstName", &set.FirstName}, {"lastName", &set.LastName}} {
			if _, there := r.fields[f.name]; !there {
				*f.into = adapter.Clear[string]()
			}
		}
	}
	return set, set.Droppable()
}

// attributes reads values that are lists, as they should be, and single texts, which
// Keycloak accepts too.
func (r representation) attributes() map[string][]string {
	var raw map[string]json.RawMessage
	attributes := make(map[string][]string)
	if json.Unmarshal(r.fields["attributes"], &raw) != nil {
		return attributes
	}
	for name, value := range raw {
		var list []string
		var one string
		switch {
		case json.Unmarshal(value, &list) == nil:
			if len(list) > 0 {
				attributes[name] = list
			}
		case json.Unmarshal(value, &one) == nil && one != "":
			attributes[name] = []string{one}
		}
	}
	return attributes
}

func (r representation) groups() []string {
	var groups []string
	if json.Unmarshal(r.fields["groups"], &groups) != nil {
		return nil
	}
	for i, g := range groups {
		groups[i] = "/" + strings.TrimPrefix(g, "/")
	}
	return groups
}

// parseRoles reads a role mapping's representation: an array of roles.
func parseRoles(raw json.RawMessage, client string) ([]adapter.Role, error) {
	var roles []struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	}
	if err := json.Unmarshal(raw, &roles); err != nil {
		return nil, fmt.Errorf("the representation is not a list of roles: %w", err)
	}
	out := make([]adapter.Role, 0, len(roles))
	for _, r := range roles {
		if r.Name != "" {
			out = append(out, adapter.Role{ID: r.ID, Name: r.Name, Client: client})
		}
	}
	return out, nil
}

// parseGroup reads a membership's representation: the group.
func parseGroup(raw json.RawMessage, id string) (adapter.Group, error) {
	var g struct {
		Name string `json:"name"`
		Path string `json:"path"`
	}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &g); err != nil {
			return adapter.Group{}, fmt.Errorf("the representation is not a group: %w", err)
		}
	}
	path := g.Path
	if path == "" && g.Name != "" {
		path = "/" + g.Name
	}
	return adapter.Group{ID: id, Path: path}, nil
}

// organizationOf reads which organization a membership's event is about. Its alias is
// told only where the event has a representation.
func organizationOf(p *adapter.AdminEventReceived) adapter.Organization {
	o := adapter.Organization{ID: keycloak.ParseResourcePath(p.ResourcePath).OrganizationID}
	var rep struct {
		Alias string `json:"alias"`
	}
	if json.Unmarshal(p.Representation, &rep) == nil {
		o.Alias = rep.Alias
	}
	return o
}
