package interpret

import (
	"strings"
	"time"

	"github.com/keytrail/keytrail/adapter"
)

// userChange says what a user event means for the user, nil where it means nothing.
// Failures change nobody.
func userChange(p *adapter.UserEventReceived) adapter.UserPayload {
	if p.Realm == "" || p.UserID == "" || p.Error != "" || strings.HasSuffix(p.Type, "_ERROR") {
		return nil
	}
	ref := adapter.UserRef{Realm: p.Realm, UserID: p.UserID}
	switch p.Type {
	case "REGISTER":
		return registration(p, ref)
	case "UPDATE_PROFILE", "UPDATE_EMAIL", "VERIFY_PROFILE":
		return profileUpdate(p, ref)
	case "VERIFY_EMAIL":
		set := adapter.Profile{EmailVerified: adapter.Set(true)}
		if email := p.Details["email"]; email != "" {
			set.Email = adapter.Set(email)
		}
		return &adapter.UserApiUpdated{UserChange: adapter.UserChange{UserRef: ref, Set: set, Via: "email_verification"}}
	case "DELETE_ACCOUNT":
		return &adapter.UserApiDeleted{UserRef: ref, Via: "account"}
	case "USER_DISABLED_BY_PERMANENT_LOCKOUT":
		return &adapter.UserApiDisabled{UserChange: adapter.UserChange{
			UserRef: ref, Set: adapter.Profile{Enabled: adapter.Set(false)}, Via: "lockout",
		}}
	case "USER_DISABLED_BY_TEMPORARY_LOCKOUT":
		return temporaryLockout(p, ref)
	case "UPDATE_PASSWORD":
		return &adapter.UserApiCredentialsChanged{UserRef: ref, Action: actionPasswordUpdated, CredentialType: "password"}
	case "UPDATE_CREDENTIAL":
		if p.Details["credential_type"] == "password" {
			return &adapter.UserApiCredentialsChanged{UserRef: ref, Action: actionPasswordUpdated, CredentialType: "password"}
		}
		return &adapter.UserApiCredentialsChanged{
			UserRef: ref, Action: actionCredentialUpdated,
			CredentialType: p.Details["credential_type"], CredentialID: p.Details["credential_id"],
		}
	case "REMOVE_CREDENTIAL":
		return &adapter.UserApiCredentialsChanged{
			UserRef: ref, Action: actionCredentialRemoved,
			CredentialType: p.Details["credential_type"], CredentialID: p.Details["credential_id"],
		}
	case "FEDERATED_IDENTITY_LINK", "REMOVE_FEDERATED_IDENTITY":
		return &adapter.UserApiFederatedIdentityChanged{
			UserRef: ref, Provider: p.Details["identity_provider"], Linked: p.Type == "FEDERATED_IDENTITY_LINK",
		}
	default:
		return nil
	}
}

// temporaryLockout is a user who may not log in until a moment, and stays enabled. The
// event tells that moment by the server's own clock on the wall and not its time zone
// (26.7.3 in Asia/Tokyo, measured), so that a read has to settle it.
func temporaryLockout(p *adapter.UserEventReceived, ref adapter.UserRef) adapter.UserPayload {
	change := adapter.UserChange{UserRef: ref, Via: "lockout", Unfolded: "the event tells the end of the lock-out without a time zone"}
	if until, err := time.Parse("2006-01-02T15:04:05", p.Details["not_before"]); err == nil {
		change.Set.LockedUntil = adapter.Set(until)
		change.Inferred = []string{adapter.FieldLockedUntil}
	}
	return &adapter.UserApiUpdated{UserChange: change}
}

// registration is a user who created their own account: Keycloak enables it.
func registration(p *adapter.UserEventReceived, ref adapter.UserRef) adapter.UserPayload {
	set := adapter.Profile{Enabled: adapter.Set(true)}
	for _, f := range []struct {
		detail string
		into   *adapter.Optional[string]
	}{
		{"username", &set.Username},
		{"email", &set.Email},
		{"first_name", &set.FirstName},
		{"last_name", &set.LastName},
	} {
		if v := p.Details[f.detail]; v != "" {
			*f.into = adapter.Set(v)
		}
	}
	return &adapter.UserApiCreated{UserChange: adapter.UserChange{UserRef: ref, Set: set, Via: "registration"}}
}

// profileUpdate reads updated_* and previous_* details. A previous value is left out
// where it was empty, and a field that has only a previous value was emptied
// (EventAuditingAttributeChangeListener.java; measured on 26.7.3).
func profileUpdate(p *adapter.UserEventReceived, ref adapter.UserRef) adapter.UserPayload {
	change := adapter.UserChange{UserRef: ref, Via: "account"}
	for detail := range p.Details {
		name, updated := strings.CutPrefix(detail, "updated_")
		if !updated {
			var was bool
			if name, was = strings.CutPrefix(detail, "previous_"); !was {
				continue
			}
		}
		value := p.Details["updated_"+name]
		field := adapter.Set(value)
		if value == "" {
			field = adapter.Clear[string]()
		}
		switch name {
		case "email":
			change.Set.Email = field
			// A changed address is no longer a verified one.
			change.Set.EmailVerified = adapter.Set(false)
			change.Inferred = append(change.Inferred, adapter.FieldEmailVerified)
		case "first_name":
			change.Set.FirstName = field
		case "last_name":
			change.Set.LastName = field
		case "username":
			change.Set.Username = field
		default:
			if change.PatchAttributes == nil {
				change.PatchAttributes = make(map[string][]string)
			}
			var values []string
			if value != "" {
				// Keycloak joins several values with "::".
				values = strings.Split(value, "::")
			}
			change.PatchAttributes[name] = values
		}
	}
	if p.Type == "UPDATE_EMAIL" && p.Details["email_verified"] == "true" {
		change.Set.EmailVerified = adapter.Set(true)
	}
	return &adapter.UserApiUpdated{UserChange: change}
}
