package keycloaktest

// routes is the HTTP surface with the roles that each call needs (each role tried
// alone on Keycloak 26.7.3).
func (s *Server) routes() {
	var (
		viewEvents   = anyOf("view-events", "manage-events")
		manageEvents = anyOf("manage-events")
		queryUsers   = anyOf("query-users", "view-users", "manage-users")
		viewUsers    = anyOf("view-users", "manage-users")
		manageUsers  = anyOf("manage-users")
		viewRealm    = anyOf("view-realm", "manage-realm")
		manageRealm  = anyOf("manage-realm")
		viewClients  = anyOf("view-clients", "manage-clients")
		manageClient = anyOf("manage-clients")
		viewOrgs     = anyOf("view-organizations", "manage-organizations")
		manageOrgs   = anyOf("manage-organizations")
	)
	const realm = "/admin/realms/{realm}"

	s.mux.HandleFunc("POST /realms/{realm}/protocol/openid-connect/token", s.token)
	s.handle("GET /admin/serverinfo", anyAdmin, (*call).getServerInfo)
	s.handle("GET /admin/realms", anyAdmin, (*call).listRealms)
	s.handle("POST /admin/realms", administrator, (*call).createRealm)
	s.handle("GET "+realm, anyAdmin, (*call).getRealm)
	s.handle("PUT "+realm, manageRealm, (*call).updateRealm)
	s.handle("DELETE "+realm, manageRealm, (*call).deleteRealm)
	s.handle("POST "+realm+"/partialImport", manageRealm, (*call).partialImport)

	s.handle("GET "+realm+"/admin-events", viewEvents, (*call).listAdminEvents)
	s.handle("DELETE "+realm+"/admin-events", manageEvents, (*call).clearAdminEvents)
	s.handle("GET "+realm+"/events", viewEvents, (*call).listUserEvents)
	s.handle("DELETE "+realm+"/events", manageEvents, (*call).clearUserEvents)
	s.handle("GET "+realm+"/events/config", viewEvents, (*call).getEventsConfig)
	s.handle("PUT "+realm+"/events/config", manageEvents, (*call).putEventsConfig)

	const webhooks = "/realms/{realm}/webhooks"
	s.handle("GET "+webhooks, viewEvents, (*call).listWebhooks)
	s.handle("POST "+webhooks, manageEvents, (*call).createWebhook)
	s.handle("GET "+webhooks+"/count", viewEvents, (*call).countWebhooks)
	s.handle("GET "+webhooks+"/{webhook}", viewEvents, (*call).getWebhook)
	s.handle("PUT "+webhooks+"/{webhook}", manageEvents, (*call).updateWebhook)
	s.handle("DELETE "+webhooks+"/{webhook}", manageEvents, (*call).deleteWebhook)
	s.handle("GET "+webhooks+"/{webhook}/secret", manageEvents, (*call).webhookSecret)

	s.handle("GET "+realm+"/users", queryUsers, (*call).listUsers)
	s.handle("POST "+realm+"/users", manageUsers, (*call).createUser)
	s.handle("GET "+realm+"/users/count", queryUsers, (*call).countUsers)
	s.handle("GET "+realm+"/users/profile", anyOf("query-users", "view-users", "manage-users", "view-realm", "manage-realm"), (*call).getProfile)
	s.handle("PUT "+realm+"/users/profile", manageRealm, (*call).putProfile)
	s.withUser("GET ", viewUsers, (*call).getUser)
	s.withUser("PUT ", manageUsers, (*call).updateUser)
	s.withUser("DELETE ", manageUsers, (*call).deleteUser)
	s.withUser("PUT /reset-password", manageUsers, (*call).resetPassword)
	s.withUser("POST /logout", manageUsers, (*call).logoutUser)
	s.withUser("PUT /execute-actions-email", manageUsers, (*call).executeActionsEmail)
	s.withUser("PUT /send-verify-email", manageUsers, (*call).sendVerifyEmail)
	s.withUser("GET /credentials", viewUsers, (*call).listCredentials)
	s.withUser("DELETE /credentials/{credential}", manageUsers, (*call).deleteCredential)
	s.withUser("GET /role-mappings", viewUsers, (*call).listMappings)
	for _, target := range []string{"/role-mappings/realm", "/role-mappings/clients/{client}"} {
		s.withUser("GET "+target, viewUsers, (*call).listMapping)
		s.withUser("POST "+target, manageUsers, (*call).addMapping)
		s.withUser("DELETE "+target, manageUsers, (*call).removeMapping)
	}
	s.handle("POST "+realm+"/ui-ext/role-mapping-delete/users/{user}", anyone, userOr404(manageUsers, (*call).consoleTakesRoles))
	s.withUser("GET /groups", viewUsers, (*call).listUserGroups)
	s.withUser("GET /groups/count", viewUsers, (*call).countUserGroups)
	s.withUser("PUT /groups/{group}", manageUsers, (*call).joinGroup)
	s.withUser("DELETE /groups/{group}", manageUsers, (*call).leaveGroup)
	s.withUser("GET /federated-identity", viewUsers, (*call).listLinks)
	s.withUser("POST /federated-identity/{provider}", manageUsers, (*call).addLink)
	s.withUser("DELETE /federated-identity/{provider}", manageUsers, (*call).removeLink)

	s.withRoles("GET", "", viewRealm, viewClients, (*call).listRoles)
	s.withRoles("POST", "", manageRealm, manageClient, (*call).createRole)
	s.withRoles("GET", "/{role}", viewRealm, viewClients, (*call).getRole)
	s.withRoles("PUT", "/{role}", manageRealm, manageClient, (*call).updateRole)
	s.withRoles("DELETE", "/{role}", manageRealm, manageClient, (*call).deleteRole)
	s.withRoles("GET", "/{role}/users", both(viewRealm, viewUsers), both(viewClients, viewUsers), (*call).listRoleUsers)
	s.handle("GET "+realm+"/roles-by-id/{role}", viewRealm, (*call).getRoleByID)

	s.handle("GET "+realm+"/clients", anyOf("query-clients", "view-clients", "manage-clients"), (*call).listClients)
	s.handle("GET "+realm+"/clients/{client}/service-account-user", viewClients, (*call).serviceAccountUser)

	s.handle("GET "+realm+"/groups", anyOf("query-groups", "view-users", "manage-users"), (*call).listGroups)
	s.handle("POST "+realm+"/groups", manageUsers, (*call).createGroup)
	s.handle("GET "+realm+"/groups/count", anyOf("query-groups", "view-users", "manage-users"), (*call).countGroups)
	s.handle("GET "+realm+"/groups/{group}", viewUsers, (*call).getGroup)
	s.handle("PUT "+realm+"/groups/{group}", manageUsers, (*call).updateGroup)
	s.handle("DELETE "+realm+"/groups/{group}", manageUsers, (*call).deleteGroup)
	s.handle("GET "+realm+"/groups/{group}/children", viewUsers, (*call).listSubGroups)
	s.handle("POST "+realm+"/groups/{group}/children", manageUsers, (*call).createSubGroup)
	s.handle("GET "+realm+"/groups/{group}/members", viewUsers, (*call).listMembers)

	s.handle("GET "+realm+"/identity-provider/instances", anyOf("view-identity-providers", "manage-identity-providers"), (*call).listIdentityProviders)
	s.handle("POST "+realm+"/identity-provider/instances", anyOf("manage-identity-providers"), (*call).createIdentityProvider)
	s.handle("GET "+realm+"/attack-detection/brute-force/users/{user}", viewUsers, (*call).getBruteForce)
	s.handle("DELETE "+realm+"/attack-detection/brute-force/users/{user}", manageUsers, (*call).clearBruteForce)
	s.handle("DELETE "+realm+"/attack-detection/brute-force/users", manageUsers, (*call).clearBruteForce)

	s.handle("GET "+realm+"/organizations", anyOf("query-organizations", "view-organizations", "manage-organizations"), (*call).listOrganizations)
	s.handle("POST "+realm+"/organizations", manageOrgs, (*call).createOrganization)
	s.handle("GET "+realm+"/organizations/{org}", viewOrgs, (*call).getOrganization)
	s.handle("DELETE "+realm+"/organizations/{org}", manageOrgs, (*call).deleteOrganization)
	s.handle("GET "+realm+"/organizations/{org}/members", both(viewOrgs, viewUsers), (*call).listOrgMembers)
	s.handle("POST "+realm+"/organizations/{org}/members", both(manageOrgs, manageUsers), (*call).addOrgMember)
	s.handle("GET "+realm+"/organizations/{org}/{members}/{user}", both(viewOrgs, viewUsers), (*call).orgPath)
	s.handle("DELETE "+realm+"/organizations/{org}/members/{user}", both(manageOrgs, manageUsers), (*call).removeOrgMember)
}

// both needs either right.
func both(a, b access) access { return func(c *call) bool { return a(c) && b(c) } }
