package keycloak

import "strings"

// PathKind is what a resource path names.
type PathKind string

// Kinds of resource paths. Only PathUser is the user itself: an identity provider
// link is removed with USER DELETE on users/{id}/federated-identity/{alias}, and
// everything else below a user comes as USER ACTION or with a type of its own.
const (
	PathOther PathKind = "other"
	// PathUser is users/{id}, also as partial import and login failures send it.
	PathUser PathKind = "user"
	// PathUserSub is users/{id}/{action}, such as reset-password or logout,
	// and whatever else lies below a user and has no kind of its own.
	PathUserSub PathKind = "user_sub"
	// PathCredentials is users/{id}/credentials/{credential}….
	PathCredentials PathKind = "credentials"
	// PathConsent is users/{id}/consents/{client_id}.
	PathConsent PathKind = "consent"
	// PathFederatedIdentity is users/{id}/federated-identity/{alias}.
	PathFederatedIdentity PathKind = "federated_identity"
	// PathRoleMappingRealm is users/{id}/role-mappings/realm.
	PathRoleMappingRealm PathKind = "role_mapping_realm"
	// PathRoleMappingClient is users/{id}/role-mappings/clients/{client uuid}.
	PathRoleMappingClient PathKind = "role_mapping_client"
	// PathGroupMembership is users/{id}/groups/{group}.
	PathGroupMembership PathKind = "group_membership"
	// PathUIExtRoleMappingDelete is ui-ext/role-mapping-delete/users/{id}, the
	// admin console's way to unassign roles (26.7.3): one event without
	// representation, for realm and client roles alike.
	PathUIExtRoleMappingDelete PathKind = "ui_ext_role_mapping_delete"
	// PathLoginFailures is attack-detection/brute-force/users/{id}.
	PathLoginFailures PathKind = "login_failures"
	// PathAllLoginFailures is attack-detection/brute-force/users.
	PathAllLoginFailures PathKind = "all_login_failures"

	// PathOrganization is organizations/{id}.
	PathOrganization PathKind = "organization"
	// PathOrganizationMembers is organizations/{id}/members: a member was added,
	// and only details.username and details.email say who.
	PathOrganizationMembers PathKind = "organization_members"
	// PathOrganizationMember is organizations/{id}/members/{user}.
	PathOrganizationMember PathKind = "organization_member"

	// PathGroup is groups/{id}, PathGroupChildren groups/{id}/children.
	PathGroup         PathKind = "group"
	PathGroupChildren PathKind = "group_children"
	// PathGroupRoleMappingRealm and PathGroupRoleMappingClient change what every member has.
	PathGroupRoleMappingRealm  PathKind = "group_role_mapping_realm"
	PathGroupRoleMappingClient PathKind = "group_role_mapping_client"
	// PathDefaultGroup is default-groups/{id}; it comes as GROUP CREATE and
	// DELETE although no group is created or deleted.
	PathDefaultGroup PathKind = "default_group"
	// PathRealmRole is roles/{name}; the name may contain "/".
	PathRealmRole PathKind = "realm_role"
	// PathRoleByID is roles-by-id/{id}.
	PathRoleByID PathKind = "role_by_id"
	// PathClient is clients/{uuid}, PathClientRole clients/{uuid}/roles/{name}.
	PathClient     PathKind = "client"
	PathClientRole PathKind = "client_role"
	// PathIdentityProvider is identity-provider/instances/{alias}.
	PathIdentityProvider PathKind = "identity_provider"
	// PathEventsConfig is events/config.
	PathEventsConfig PathKind = "events_config"
)

// Path is a resource path taken apart. Fields that the kind has no use for are empty.
type Path struct {
	Kind PathKind
	// UserID is set for every kind about one user. It is not always a UUID.
	UserID string
	// Action is the rest of a PathUserSub, such as "reset-password".
	Action           string
	GroupID          string
	ClientUUID       string
	RoleID           string
	RoleName         string
	OrganizationID   string
	CredentialID     string
	IdentityProvider string
}

// ParseResourcePath takes an admin event's resourcePath apart: the decoded URL
// path after /admin/realms/{realm}/, where a created resource's id is appended
// (AdminEventBuilder.java). A path that it does not know is PathOther.
//
// The path comes decoded, so an id that itself contains "/" cannot be told from
// a deeper path. Such ids exist only for federated users (f:component:external);
// below one of those, only known sub-paths are accepted, and everything else is
// PathOther rather than somebody else's user.
func ParseResourcePath(path string) Path {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for _, s := range segments {
		if s == "" {
			return Path{Kind: PathOther}
		}
	}
	rest := segments[1:]
	switch segments[0] {
	case "users":
		return userPath(rest)
	case "groups":
		return groupPath(rest)
	case "organizations":
		return organizationPath(rest)
	case "clients":
		return clientPath(rest)
	case "roles":
		if len(rest) > 0 {
			return Path{Kind: PathRealmRole, RoleName: strings.Join(rest, "/")}
		}
	case "roles-by-id":
		if len(rest) == 1 {
			return Path{Kind: PathRoleByID, RoleID: rest[0]}
		}
	case "default-groups":
		if len(rest) == 1 {
			return Path{Kind: PathDefaultGroup, GroupID: rest[0]}
		}
	case "ui-ext":
		if len(rest) == 3 && rest[0] == "role-mapping-delete" && rest[1] == "users" {
			return Path{Kind: PathUIExtRoleMappingDelete, UserID: rest[2]}
		}
	case "attack-detection":
		if len(rest) >= 2 && rest[0] == "brute-force" && rest[1] == "users" {
			switch len(rest) {
			case 2:
				return Path{Kind: PathAllLoginFailures}
			case 3:
				return Path{Kind: PathLoginFailures, UserID: rest[2]}
			}
		}
	case "identity-provider":
		if len(rest) == 2 && rest[0] == "instances" {
			return Path{Kind: PathIdentityProvider, IdentityProvider: rest[1]}
		}
	case "events":
		if len(rest) == 1 && rest[0] == "config" {
			return Path{Kind: PathEventsConfig}
		}
	}
	return Path{Kind: PathOther}
}

func userPath(segments []string) Path {
	if len(segments) == 0 {
		return Path{Kind: PathOther}
	}
	p := Path{Kind: PathUser, UserID: segments[0]}
	sub := segments[1:]
	if len(sub) == 0 {
		return p
	}
	switch {
	case len(sub) == 2 && sub[0] == "role-mappings" && sub[1] == "realm":
		p.Kind = PathRoleMappingRealm
	case len(sub) == 3 && sub[0] == "role-mappings" && sub[1] == "clients":
		p.Kind, p.ClientUUID = PathRoleMappingClient, sub[2]
	case len(sub) == 2 && sub[0] == "groups":
		p.Kind, p.GroupID = PathGroupMembership, sub[1]
	case len(sub) == 2 && sub[0] == "federated-identity":
		p.Kind, p.IdentityProvider = PathFederatedIdentity, sub[1]
	case len(sub) >= 2 && sub[0] == "credentials":
		p.Kind, p.CredentialID = PathCredentials, sub[1]
	case len(sub) == 2 && sub[0] == "consents":
		p.Kind = PathConsent
	case strings.HasPrefix(p.UserID, "f:") && !userActions[sub[0]]:
		return Path{Kind: PathOther}
	default:
		p.Kind, p.Action = PathUserSub, strings.Join(sub, "/")
	}
	return p
}

// userActions are the sub-resources of UserResource.java that emit USER ACTION.
var userActions = map[string]bool{
	"reset-password": true, "reset-password-email": true, "execute-actions-email": true,
	"send-verify-email": true, "logout": true, "impersonation": true,
}

func groupPath(segments []string) Path {
	if len(segments) == 0 {
		return Path{Kind: PathOther}
	}
	p := Path{Kind: PathOther, GroupID: segments[0]}
	sub := segments[1:]
	switch {
	case len(sub) == 0:
		p.Kind = PathGroup
	case len(sub) == 1 && sub[0] == "children":
		p.Kind = PathGroupChildren
	case len(sub) == 2 && sub[0] == "role-mappings" && sub[1] == "realm":
		p.Kind = PathGroupRoleMappingRealm
	case len(sub) == 3 && sub[0] == "role-mappings" && sub[1] == "clients":
		p.Kind, p.ClientUUID = PathGroupRoleMappingClient, sub[2]
	}
	return p
}

func organizationPath(segments []string) Path {
	if len(segments) == 0 {
		return Path{Kind: PathOther}
	}
	p := Path{Kind: PathOther, OrganizationID: segments[0]}
	sub := segments[1:]
	switch {
	case len(sub) == 0:
		p.Kind = PathOrganization
	case len(sub) == 1 && sub[0] == "members":
		p.Kind = PathOrganizationMembers
	case len(sub) == 2 && sub[0] == "members":
		p.Kind, p.UserID = PathOrganizationMember, sub[1]
	}
	return p
}

func clientPath(segments []string) Path {
	if len(segments) == 0 {
		return Path{Kind: PathOther}
	}
	p := Path{Kind: PathOther, ClientUUID: segments[0]}
	sub := segments[1:]
	switch {
	case len(sub) == 0:
		p.Kind = PathClient
	case len(sub) >= 2 && sub[0] == "roles":
		p.Kind, p.RoleName = PathClientRole, strings.Join(sub[1:], "/")
	}
	return p
}
