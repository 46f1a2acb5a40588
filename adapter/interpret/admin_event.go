package interpret

import (
	"strings"
	"time"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/keycloak"
)

// Credential actions, as UserApiCredentialsChanged tells them.
const (
	actionPasswordReset     = "password_reset"
	actionPasswordUpdated   = "password_updated"
	actionCredentialUpdated = "credential_updated"
	actionCredentialRemoved = "credential_removed"
)

// adminChange says what an admin event means for a user, nil where it means nothing.
//
// Neither path nor type alone is enough (all measured on 26.7.3): unlinking an
// identity provider is a USER DELETE on a sub-path, enabling a locked user emits a
// USER_LOGIN_FAILURE DELETE on users/{id}, and a partial import creates users as
// REALM CREATE on users/{id}.
func adminChange(p *adapter.AdminEventReceived) (adapter.UserPayload, error) {
	path := keycloak.ParseResourcePath(p.ResourcePath)
	if p.Realm == "" || path.UserID == "" || p.Error != "" {
		return nil, nil
	}
	ref := adapter.UserRef{Realm: p.Realm, UserID: path.UserID}
	switch p.ResourceType {
	case keycloak.ResourceUser, keycloak.ResourceRealm:
		switch path.Kind {
		case keycloak.PathUser:
			return userResourceChange(p, ref)
		case keycloak.PathFederatedIdentity:
			return federatedIdentityChange(p, ref, path), nil
		case keycloak.PathUserSub, keycloak.PathCredentials:
			return actionChange(p, ref, path), nil
		}
	case keycloak.ResourceRealmRoleMapping:
		switch path.Kind {
		case keycloak.PathRoleMappingRealm:
			return rolesChange(p, ref, "")
		case keycloak.PathUIExtRoleMappingDelete:
			// For realm and client roles alike, without a representation (measured on 26.7.3).
			return &adapter.UserApiRolesChanged{UserRef: ref, Unfolded: "the admin console does not tell which roles it takes"}, nil
		}
	case keycloak.ResourceClientRoleMapping:
		if path.Kind == keycloak.PathRoleMappingClient {
			return rolesChange(p, ref, path.ClientUUID)
		}
	case keycloak.ResourceGroupMembership:
		if path.Kind == keycloak.PathGroupMembership {
			return groupsChange(p, ref, path.GroupID)
		}
	case keycloak.ResourceOrganizationMembership:
		// A removal that deletes a managed member looks the same, and emits no USER DELETE.
		if path.Kind == keycloak.PathOrganizationMember && p.OperationType == keycloak.OperationDelete {
			return &adapter.UserApiOrganizationsChanged{
				UserRef: ref, Left: []adapter.Organization{organizationOf(p)},
				Unfolded: leftOrganization,
			}, nil
		}
	case keycloak.ResourceUserLoginFailure:
		// The path users/{id} goes with an update that enables the user, and ends a lock-out
		// as well; of a user who is not locked Keycloak emits none (26.7.3).
		ends := path.Kind == keycloak.PathLoginFailures || path.Kind == keycloak.PathUser
		if ends && p.OperationType == keycloak.OperationDelete {
			return &adapter.UserApiUpdated{UserChange: adapter.UserChange{
				UserRef: ref, Set: adapter.Profile{LockedUntil: adapter.Clear[time.Time]()}, Via: "admin",
			}}, nil
		}
	}
	return nil, nil
}

// leftOrganization is why leaving an organization is not all that may have happened.
const leftOrganization = "leaving an organization deletes a user whom it manages"

func userResourceChange(p *adapter.AdminEventReceived, ref adapter.UserRef) (adapter.UserPayload, error) {
	via, operation := "admin", p.OperationType
	if p.ResourceType == keycloak.ResourceRealm {
		via = "import"
		// An import that overwrites a user gives it a new id and reports that as an update;
		// the old id is gone without an event (measured on 26.7.3).
		if operation == keycloak.OperationUpdate {
			operation = keycloak.OperationCreate
		}
	}
	switch operation {
	case keycloak.OperationCreate:
		rep, err := parseUser(p.Representation)
		if err != nil {
			return nil, err
		}
		set, inferred := rep.profile(false)
		created := &adapter.UserApiCreated{
			UserChange: adapter.UserChange{UserRef: ref, Set: set, Inferred: inferred, Via: via},
			Groups:     rep.groups(), Partial: rep.empty(),
		}
		if rep.empty() {
			created.Unfolded = noRepresentation
		}
		if name := p.Details["username"]; name != "" && !set.Username.Present() {
			created.Set.Username = adapter.Set(name)
		}
		return created, nil
	case keycloak.OperationUpdate:
		rep, err := parseUser(p.Representation)
		if err != nil {
			return nil, err
		}
		set, inferred := rep.profile(true)
		updated := &adapter.UserApiUpdated{UserChange: adapter.UserChange{UserRef: ref, Set: set, Inferred: inferred, Via: via}}
		if rep.empty() {
			updated.Unfolded = noRepresentation
		}
		return updated, nil
	case keycloak.OperationDelete:
		return &adapter.UserApiDeleted{UserRef: ref, Via: via}, nil
	default:
		return nil, nil
	}
}

// noRepresentation is why an event does not tell what it changed: the realm does not
// store representations, or what came was not JSON.
const noRepresentation = "the event has no readable representation"

func federatedIdentityChange(p *adapter.AdminEventReceived, ref adapter.UserRef, path keycloak.Path) adapter.UserPayload {
	switch p.OperationType {
	case keycloak.OperationCreate, keycloak.OperationDelete:
		return &adapter.UserApiFederatedIdentityChanged{
			UserRef: ref, Provider: path.IdentityProvider, Linked: p.OperationType == keycloak.OperationCreate,
		}
	default:
		return nil
	}
}

func actionChange(p *adapter.AdminEventReceived, ref adapter.UserRef, path keycloak.Path) adapter.UserPayload {
	switch {
	case path.Kind == keycloak.PathUserSub && path.Action == "reset-password":
		return &adapter.UserApiCredentialsChanged{UserRef: ref, Action: actionPasswordReset, CredentialType: "password"}
	case path.Kind == keycloak.PathUserSub && path.Action == "logout":
		return &adapter.UserApiSessionsEnded{UserRef: ref, Via: "admin"}
	case path.Kind == keycloak.PathUserSub && path.Action == "send-verify-email":
		return &adapter.UserApiEmailRequested{UserRef: ref, Email: adapter.EmailVerify, Via: "admin"}
	case path.Kind == keycloak.PathUserSub && path.Action == "execute-actions-email":
		return &adapter.UserApiEmailRequested{UserRef: ref, Email: adapter.EmailExecuteActions, Via: "admin"}
	// Deleting a credential is an ACTION on its own path; moving or labelling one emits
	// nothing.
	case path.Kind == keycloak.PathCredentials && strings.HasSuffix(p.ResourcePath, path.CredentialID):
		return &adapter.UserApiCredentialsChanged{
			UserRef: ref, Action: actionCredentialRemoved,
			CredentialType: p.Details["credential_type"], CredentialID: path.CredentialID,
		}
	default:
		return nil
	}
}

func rolesChange(p *adapter.AdminEventReceived, ref adapter.UserRef, client string) (adapter.UserPayload, error) {
	if len(p.Representation) == 0 {
		return &adapter.UserApiRolesChanged{UserRef: ref, Unfolded: noRepresentation}, nil
	}
	roles, err := parseRoles(p.Representation, client)
	if err != nil || len(roles) == 0 {
		return nil, err
	}
	switch p.OperationType {
	case keycloak.OperationCreate:
		return &adapter.UserApiRolesChanged{UserRef: ref, Added: roles}, nil
	case keycloak.OperationDelete:
		return &adapter.UserApiRolesChanged{UserRef: ref, Removed: roles}, nil
	default:
		return nil, nil
	}
}

func groupsChange(p *adapter.AdminEventReceived, ref adapter.UserRef, id string) (adapter.UserPayload, error) {
	group, err := parseGroup(p.Representation, id)
	if err != nil {
		return nil, err
	}
	if group.Path == "" {
		return &adapter.UserApiGroupsChanged{UserRef: ref, Unfolded: noRepresentation}, nil
	}
	switch p.OperationType {
	case keycloak.OperationCreate:
		return &adapter.UserApiGroupsChanged{UserRef: ref, Joined: []adapter.Group{group}}, nil
	case keycloak.OperationDelete:
		return &adapter.UserApiGroupsChanged{UserRef: ref, Left: []adapter.Group{group}}, nil
	default:
		return nil, nil
	}
}
