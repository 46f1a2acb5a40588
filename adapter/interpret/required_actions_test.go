package interpret_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/interpret"
	"github.com/keytrail/keytrail/keycloak/webhook"
)

// own is a user event of the user 1 that came seconds after the start.
func (b *bundle) own(seconds int, typ, rest string) {
	b.t.Helper()
	d, err := webhook.DecodeUserEvent(fmt.Appendf(nil,
		`{"id":"own-%d-%s","time":%d,"realmName":"acme","type":%q,"userId":"1"%s}`, seconds, typ, 1000*seconds, typ, rest))
	require.NoError(b.t, err)
	b.record(d)
	b.interpret()
}

func (b *bundle) requires(seconds int, actions string) {
	b.t.Helper()
	deliveries, err := webhook.Decode([]byte(update(fmt.Sprint("requires", seconds), "1", fmt.Sprint(1000*seconds),
		`{\"requiredActions\":[`+actions+`]}`)), webhook.DialectAuto)
	require.NoError(b.t, err)
	b.record(deliveries...)
	b.interpret()
}

// What a user has done at a login is required no more. The events are those of 26.7.3,
// see TestOwnCredentials of internal/e2e.
func TestARequiredActionThatIsDone(t *testing.T) {
	t.Parallel()
	const (
		credentials = adapter.TypeUserApiCredentialsChanged
		updated     = adapter.TypeUserApiUpdated
	)
	for _, c := range []struct {
		name, typ, rest string
		told            []string
		left            []string
	}{
		{"a second factor", "UPDATE_CREDENTIAL", `,"details":{"credential_type":"otp","custom_required_action":"CONFIGURE_TOTP"}`, []string{credentials, updated}, []string{"TERMS_AND_CONDITIONS", "UPDATE_PASSWORD", "UPDATE_PROFILE", "VERIFY_EMAIL"}},
		{"the same told twice", "UPDATE_TOTP", `,"details":{"credential_type":"otp","custom_required_action":"CONFIGURE_TOTP"}`, nil, nil},
		{"one that nobody required", "UPDATE_CREDENTIAL", `,"details":{"credential_type":"webauthn","custom_required_action":"webauthn-register"}`, []string{credentials}, nil},
		{"a removal", "REMOVE_CREDENTIAL", `,"details":{"credential_type":"otp","custom_required_action":"delete_credential"}`, []string{credentials}, nil},
		{"a password", "UPDATE_CREDENTIAL", `,"details":{"credential_type":"password","custom_required_action":"UPDATE_PASSWORD"}`, []string{credentials}, []string{"CONFIGURE_TOTP", "TERMS_AND_CONDITIONS", "UPDATE_PROFILE", "VERIFY_EMAIL"}},
		{"a password of no action", "UPDATE_PASSWORD", `,"details":{"credential_type":"password"}`, []string{credentials}, nil},
		{"a profile", "UPDATE_PROFILE", `,"details":{"custom_required_action":"UPDATE_PROFILE","updated_last_name":"N","previous_last_name":"M"}`, []string{updated}, []string{"CONFIGURE_TOTP", "TERMS_AND_CONDITIONS", "UPDATE_PASSWORD", "VERIFY_EMAIL"}},
		{"a profile of no action", "UPDATE_PROFILE", `,"details":{"updated_last_name":"N"}`, []string{updated}, nil},
		{"terms", "CUSTOM_REQUIRED_ACTION", `,"details":{"custom_required_action":"TERMS_AND_CONDITIONS"}`, []string{updated}, []string{"CONFIGURE_TOTP", "UPDATE_PASSWORD", "UPDATE_PROFILE", "VERIFY_EMAIL"}},
		{"an address", "VERIFY_EMAIL", `,"details":{"email":"a@example.com"}`, []string{updated}, []string{"CONFIGURE_TOTP", "TERMS_AND_CONDITIONS", "UPDATE_PASSWORD", "UPDATE_PROFILE"}},
		{"refused", "CUSTOM_REQUIRED_ACTION", `,"error":"rejected_by_user","details":{"custom_required_action":"TERMS_AND_CONDITIONS"}`, nil, nil},
		{"the login afterwards", "LOGIN", `,"details":{"custom_required_action":"TERMS_AND_CONDITIONS"}`, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			all := []string{"CONFIGURE_TOTP", "TERMS_AND_CONDITIONS", "UPDATE_PASSWORD", "UPDATE_PROFILE", "VERIFY_EMAIL"}
			b.requires(10, `\"CONFIGURE_TOTP\",\"UPDATE_PASSWORD\",\"UPDATE_PROFILE\",\"TERMS_AND_CONDITIONS\",\"VERIFY_EMAIL\"`)
			require.Equal(t, all, b.user("acme", "1").RequiredActions)
			stream := adapter.UserStream("acme", "1")
			before := len(b.types(stream))
			b.own(20, c.typ, c.rest)
			require.ElementsMatch(t, c.told, b.types(stream)[before:])
			u := b.user("acme", "1")
			if c.left == nil {
				require.Equal(t, all, u.RequiredActions)
			} else {
				require.Equal(t, c.left, u.RequiredActions)
				require.NotNil(t, u.Unread, "what is left is read")
			}

			// Whoever begins anew, and remembers nothing, tells the same.
			head := b.types(stream)
			b.interp = &interpret.Interpreter{Store: b.store, Codec: b.codec, Clock: b.interp.Clock, Logger: b.interp.Logger}
			b.interpretFrom(0)
			require.Equal(t, head, b.types(stream))
		})
	}
}

// A user of whom nothing is known is not said to have anything left to do.
func TestARequiredActionOfAStranger(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.own(10, "CUSTOM_REQUIRED_ACTION", `,"details":{"custom_required_action":"TERMS_AND_CONDITIONS"}`)
	require.Empty(t, b.types(adapter.UserStream("acme", "1")))
}

// The account console's API names the credential otherwise than the login does.
func TestTheRemovedCredentialIsNamed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.own(10, "REMOVE_CREDENTIAL", `,"details":{"credential_type":"otp","selected_credential_id":"c-1","credential_user_label":"phone"}`)
	b.own(20, "REMOVE_CREDENTIAL", `,"details":{"credential_type":"otp","credential_id":"c-2"}`)
	var ids []string
	for _, e := range b.events(adapter.UserStream("acme", "1")) {
		ids = append(ids, e.Payload.(*adapter.UserApiCredentialsChanged).CredentialID)
	}
	require.Equal(t, []string{"c-1", "c-2"}, ids)
}
