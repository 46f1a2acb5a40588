package interpret

import (
	"cmp"
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
		return passwordUpdate(p, ref)
	case "UPDATE_CREDENTIAL":
		if p.Details["credential_type"] == "password" {
			return passwordUpdate(p, ref)
		}
		return credentialChange(p, ref, actionCredentialUpdated)
	case "REMOVE_CREDENTIAL":
		return credentialChange(p, ref, actionCredentialRemoved)
	case "FEDERATED_IDENTITY_LINK", "REMOVE_FEDERATED_IDENTITY":
		return &adapter.UserApiFederatedIdentityChanged{
			UserRef: ref, Provider: p.Details["identity_provider"], Linked: p.Type == "FEDERATED_IDENTITY_LINK",
		}
	default:
		return nil
	}
}

// passwordUpdate is a password that a user chose. Where that was a required action, it
// is none any more.
func passwordUpdate(p *adapter.UserEventReceived, ref adapter.UserRef) adapter.UserPayload {
	change := &adapter.UserApiCredentialsChanged{UserRef: ref, Action: actionPasswordUpdated, CredentialType: "password"}
	if p.Details[detailRequiredAction] == requiredUpdatePassword {
		change.Temporary = new(false)
	}
	return change
}

// credentialChange is any other credential of a user's. The id is told of one that is
// removed, under one name by the login's action delete_credential and under another by
// the account's API; of one that is set up it is not told (26.7.3).
func credentialChange(p *adapter.UserEventReceived, ref adapter.UserRef, action string) adapter.UserPayload {
	return &adapter.UserApiCredentialsChanged{
		UserRef: ref, Action: action, CredentialType: p.Details["credential_type"],
		CredentialID: cmp.Or(p.Details["credential_id"], p.Details["selected_credential_id"]),
	}
}

const (
	// detailRequiredAction names the required action that the user does at a login, in
	// each event of that login: one that was asked for there (kc_action) as well.
	detailRequiredAction   = "custom_required_action"
	requiredUpdatePassword = "UPDATE_PASSWORD"
	requiredVerifyEmail    = "VERIFY_EMAIL"
)

// requiredActionOf is the required action that a user has done where the event says so,
// and that a read of the user is then without, else empty (26.7.3; VERIFY_EMAIL, which
// is done by following a link: VerifyEmailActionTokenHandler.java). The login's own
// event names the last action again. A new password says it itself: see passwordUpdate.
func requiredActionOf(p *adapter.UserEventReceived) string {
	if p.Error != "" {
		return ""
	}
	switch p.Type {
	case "UPDATE_CREDENTIAL", "UPDATE_PROFILE", "VERIFY_PROFILE", "UPDATE_EMAIL", "CUSTOM_REQUIRED_ACTION":
		if action := p.Details[detailRequiredAction]; action != requiredUpdatePassword {
			return action
		}
		return ""
	case "VERIFY_EMAIL":
		return requiredVerifyEmail
	default:
		return ""
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
