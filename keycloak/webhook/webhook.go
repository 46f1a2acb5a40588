// Package webhook decodes what Keycloak's webhook senders push, and checks their
// signatures. There is no standard payload: each sender has a dialect, and each
// dialect a file of its own here.
//
// Nothing that is a JSON object is refused. What no dialect knows becomes a
// delivery of kind Unrecognized with its exact bytes, so that it can be read once
// a dialect for it exists.
package webhook

import (
	"encoding/json"
	"errors"

	"github.com/keytrail/keytrail/keycloak"
)

// Names of dialects. DialectAuto tries each.
const (
	DialectAuto     = "auto"
	DialectP2       = "p2"
	DialectKeycloak = "keycloak"
)

// MaxDepth is how deep objects and arrays of a body may be nested.
const MaxDepth = 100

// Errors of Decode. The first three are the sender's fault (400), the last one a
// fault in the configuration.
var (
	ErrNotJSON        = errors.New("body is not JSON")
	ErrNotObject      = errors.New("body is not a JSON object")
	ErrTooDeep        = errors.New("body is nested deeper than 100")
	ErrUnknownDialect = errors.New("unknown webhook dialect")
)

// Kind is what a delivery turned out to be.
type Kind string

// Kinds of deliveries.
const (
	KindAdmin        Kind = "admin"
	KindUser         Kind = "user"
	KindUnrecognized Kind = "unrecognized"
)

// Delivery is one Keycloak event as it arrived.
type Delivery struct {
	Kind Kind
	// Admin is set for KindAdmin and User for KindUser, never both.
	Admin *keycloak.AdminEvent
	User  *keycloak.UserEvent
	// Dialect that recognised it; empty when none did.
	Dialect string
	// Raw is the event's exact bytes: the whole body, or the element of a batch.
	// It may hold invalid UTF-8, duplicate keys and NUL escapes; the decoded
	// form has valid UTF-8.
	Raw json.RawMessage
}

// Batch is what one body held, in the body's order.
type Batch []Delivery

// Decode reads a webhook body: one event, or a batch {"events":[…]}. It returns
// ErrNotJSON, ErrNotObject, ErrTooDeep (wrapped, with the reason) or
// ErrUnknownDialect, and otherwise accepts every object.
func Decode(contentBody []byte, dialect string) (Batch, error) { return nil, errors.ErrUnsupported }

// DecodeAdminEvent reads one element of GET /admin-events. It fails only on what is no JSON object.
func DecodeAdminEvent(raw []byte) (Delivery, error) { return Delivery{}, errors.ErrUnsupported }

// DecodeUserEvent reads one element of GET /events. It fails only on what is no JSON object.
func DecodeUserEvent(raw []byte) (Delivery, error) { return Delivery{}, errors.ErrUnsupported }

// KeycloakEventID is the id to deduplicate by: Keycloak's event id, else the
// sender's uid, else empty. With an empty one use Fingerprint.
func (d Delivery) KeycloakEventID() string { return "" }

// Fingerprint identifies an event that has no id, in push and in pull alike.
func (d Delivery) Fingerprint() string { return "" }

// Algorithm is a signature algorithm.
type Algorithm string

// Algorithms that p2 offers.
const (
	HMACSHA256 Algorithm = "hmac-sha256"
	HMACSHA1   Algorithm = "hmac-sha1"
)

// VerifyHMAC checks the value of X-Keycloak-Signature.
func VerifyHMAC(header string, body []byte, secrets []string, algorithm Algorithm) bool { return false }
