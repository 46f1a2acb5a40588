package keycloak_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/keytrail/keytrail/keycloak"
)

func TestParseResourcePath(t *testing.T) {
	t.Parallel()
	const user = "af9ddb90-f4e1-4e97-8e79-0075c2ea46c0"
	for path, want := range map[string]keycloak.Path{
		"users/" + user:                        {Kind: keycloak.PathUser, UserID: user},
		"/users/" + user:                       {Kind: keycloak.PathUser, UserID: user},
		"users/1212":                           {Kind: keycloak.PathUser, UserID: "1212"},
		"users/f:7a-b:jdoe":                    {Kind: keycloak.PathUser, UserID: "f:7a-b:jdoe"},
		"users/f:7a-b:a/logout":                {Kind: keycloak.PathUserSub, UserID: "f:7a-b:a", Action: "logout"},
		"users/f:7a-b:a/groups/g":              {Kind: keycloak.PathGroupMembership, UserID: "f:7a-b:a", GroupID: "g"},
		"users/f:7a-b:cn=a/b":                  {Kind: keycloak.PathOther},
		"users/1/reset-password":               {Kind: keycloak.PathUserSub, UserID: "1", Action: "reset-password"},
		"users/1/new/thing":                    {Kind: keycloak.PathUserSub, UserID: "1", Action: "new/thing"},
		"users/1/role-mappings":                {Kind: keycloak.PathUserSub, UserID: "1", Action: "role-mappings"},
		"users/1/role-mappings/realm":          {Kind: keycloak.PathRoleMappingRealm, UserID: "1"},
		"users/1/role-mappings/clients/c":      {Kind: keycloak.PathRoleMappingClient, UserID: "1", ClientUUID: "c"},
		"users/1/groups/g":                     {Kind: keycloak.PathGroupMembership, UserID: "1", GroupID: "g"},
		"users/1/federated-identity/corp":      {Kind: keycloak.PathFederatedIdentity, UserID: "1", IdentityProvider: "corp"},
		"users/1/credentials/k":                {Kind: keycloak.PathCredentials, UserID: "1", CredentialID: "k"},
		"users/1/credentials/k/moveToFirst":    {Kind: keycloak.PathCredentials, UserID: "1", CredentialID: "k"},
		"users/1/consents/app":                 {Kind: keycloak.PathConsent, UserID: "1"},
		"ui-ext/role-mapping-delete/users/1":   {Kind: keycloak.PathUIExtRoleMappingDelete, UserID: "1"},
		"ui-ext/role-mapping-delete/groups/1":  {Kind: keycloak.PathOther},
		"attack-detection/brute-force/users":   {Kind: keycloak.PathAllLoginFailures},
		"attack-detection/brute-force/users/1": {Kind: keycloak.PathLoginFailures, UserID: "1"},
		"organizations/o":                      {Kind: keycloak.PathOrganization, OrganizationID: "o"},
		"organizations/o/members":              {Kind: keycloak.PathOrganizationMembers, OrganizationID: "o"},
		"organizations/o/members/1":            {Kind: keycloak.PathOrganizationMember, OrganizationID: "o", UserID: "1"},
		"organizations/o/identity-providers":   {Kind: keycloak.PathOther, OrganizationID: "o"},
		"groups/g":                             {Kind: keycloak.PathGroup, GroupID: "g"},
		"groups/g/children":                    {Kind: keycloak.PathGroupChildren, GroupID: "g"},
		"groups/g/role-mappings/realm":         {Kind: keycloak.PathGroupRoleMappingRealm, GroupID: "g"},
		"groups/g/role-mappings/clients/c":     {Kind: keycloak.PathGroupRoleMappingClient, GroupID: "g", ClientUUID: "c"},
		"groups/g/management/permissions":      {Kind: keycloak.PathOther, GroupID: "g"},
		"default-groups/g":                     {Kind: keycloak.PathDefaultGroup, GroupID: "g"},
		"roles/temp":                           {Kind: keycloak.PathRealmRole, RoleName: "temp"},
		"roles/a/b":                            {Kind: keycloak.PathRealmRole, RoleName: "a/b"},
		"roles-by-id/r":                        {Kind: keycloak.PathRoleByID, RoleID: "r"},
		"clients/c":                            {Kind: keycloak.PathClient, ClientUUID: "c"},
		"clients/c/roles/x":                    {Kind: keycloak.PathClientRole, ClientUUID: "c", RoleName: "x"},
		"clients/c/default-client-scopes/x":    {Kind: keycloak.PathOther, ClientUUID: "c"},
		"identity-provider/instances/corp":     {Kind: keycloak.PathIdentityProvider, IdentityProvider: "corp"},
		"events/config":                        {Kind: keycloak.PathEventsConfig},
		"":                                     {Kind: keycloak.PathOther},
		"/":                                    {Kind: keycloak.PathOther},
		"users":                                {Kind: keycloak.PathOther},
		"users/":                               {Kind: keycloak.PathOther},
		"users//logout":                        {Kind: keycloak.PathOther},
		"users/1/":                             {Kind: keycloak.PathOther},
		"Users/1":                              {Kind: keycloak.PathOther},
		"sessions/s":                           {Kind: keycloak.PathOther},
		"partialImport":                        {Kind: keycloak.PathOther},
		"user-storage/x/sync":                  {Kind: keycloak.PathOther},
		"roles":                                {Kind: keycloak.PathOther}, "groups": {Kind: keycloak.PathOther}, "clients": {Kind: keycloak.PathOther},
		"organizations": {Kind: keycloak.PathOther}, "events": {Kind: keycloak.PathOther}, "ui-ext": {Kind: keycloak.PathOther},
	} {
		require.Equal(t, want, keycloak.ParseResourcePath(path), path)
	}
}

func FuzzParseResourcePath(f *testing.F) {
	for _, path := range []string{
		"users/af9ddb90-f4e1-4e97-8e79-0075c2ea46c0", "users/1212/role-mappings/realm", "users/f:a:b/c",
		"organizations/1/members/2", "ui-ext/role-mapping-delete/users/1", "roles/a/b", "", "//", "users/\xff",
	} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		p := keycloak.ParseResourcePath(path)
		require.NotEmpty(t, p.Kind)
		for _, part := range []string{p.UserID, p.GroupID, p.ClientUUID, p.OrganizationID, p.CredentialID, p.IdentityProvider, p.Action, p.RoleName, p.RoleID} {
			require.Contains(t, path, part)
		}
		if p.Kind == keycloak.PathUser {
			require.Equal(t, "users/"+p.UserID, strings.TrimPrefix(path, "/"))
		}
	})
}
