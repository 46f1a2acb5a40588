package inbound

import (
	"net/http"
	"slices"
	"strings"

	"github.com/keytrail/keytrail/keycloak/webhook"
)

// Source is one configured sender of webhooks.
type Source struct {
	Name string
	// Dialect is the payload's shape, webhook.DialectAuto to find out.
	Dialect string
	// Realm is the realm's name where bodies have none.
	Realm string
	// Algorithm checks X-Keycloak-Signature with Secrets, of which any may match
	// during a rotation. Without secrets nothing is checked: the surface must then
	// have established that the request may be trusted.
	Algorithm webhook.Algorithm
	Secrets   []string
	// Include, where not empty, names the only event types that are recorded; Exclude
	// those that are not. Types are as p2 writes them, admin.USER-CREATE or
	// access.LOGIN; one that ends in * stands for all that begin so.
	Include []string
	Exclude []string
}

// SignatureHeader carries the HMAC of the raw body (p2-inc/keycloak-events,
// HttpSenderEventListenerProvider).
const SignatureHeader = "X-Keycloak-Signature"

// Signed reports whether the source has a secret, so that bodies must be signed.
func (s *Source) Signed() bool { return len(s.Secrets) > 0 }

// Verify reports whether the body carries a valid signature. A header that is
// missing or empty is not valid: p2 sends it empty where signing failed.
func (s *Source) Verify(h http.Header, body []byte) bool {
	values := h.Values(SignatureHeader)
	if len(values) != 1 {
		return false
	}
	return webhook.VerifyHMAC(values[0], body, s.Secrets, s.Algorithm)
}

// Filter keeps the deliveries that the source is to record.
func (s *Source) Filter(batch []webhook.Delivery) []webhook.Delivery {
	if len(s.Include) == 0 && len(s.Exclude) == 0 {
		return batch
	}
	return slices.DeleteFunc(slices.Clone(batch), func(d webhook.Delivery) bool {
		name := TypeName(d)
		if slices.ContainsFunc(s.Exclude, covers(name)) {
			return true
		}
		return len(s.Include) > 0 && !slices.ContainsFunc(s.Include, covers(name))
	})
}

func covers(name string) func(pattern string) bool {
	return func(pattern string) bool {
		prefix, open := strings.CutSuffix(pattern, "*")
		return pattern == name || (open && strings.HasPrefix(name, prefix))
	}
}

// TypeName is an event's type as p2 writes it: admin.RESOURCE-OPERATION or
// access.TYPE, and "" for an unrecognised one.
func TypeName(d webhook.Delivery) string {
	switch d.Kind {
	case webhook.KindAdmin:
		return "admin." + d.Admin.ResourceType + "-" + d.Admin.OperationType
	case webhook.KindUser:
		return "access." + d.User.Type
	default:
		return ""
	}
}
