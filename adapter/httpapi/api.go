package httpapi

import "net/http"

// api is every route of the API that is built, as in the contract.
func (s *Server) api() []route {
	return append([]route{
		{http.MethodGet, "/realms/{realm}/users", s.listUsers},
		{http.MethodPost, "/realms/{realm}/users", s.createUser},
		{http.MethodGet, userPath, s.showUser},
		{http.MethodPatch, userPath, s.updateUser},
		{http.MethodDelete, userPath, s.deleteUser},
		{http.MethodGet, userPath + "/history", s.userHistory},
		{http.MethodPost, userPath + "/enable", s.enableUser},
		{http.MethodPost, userPath + "/disable", s.disableUser},

		{http.MethodGet, "/calls", s.listCalls},
		{http.MethodGet, "/calls/{id}", s.showCall},
		{http.MethodGet, "/failures", s.listFailures},
		{http.MethodGet, "/traces/{id}", s.showTrace},
		{http.MethodGet, "/traces/{id}/explanation", s.explainTrace},
		{http.MethodGet, "/events", s.listEvents},
		{http.MethodGet, "/audit", s.listAudit},
		{http.MethodGet, "/analytics", s.analytics},

		{http.MethodPost, "/realms/{realm}/reconciliations", s.startReconciliation},
		{http.MethodGet, "/reconciliations", s.listReconciliations},
		{http.MethodGet, "/reconciliations/{id}", s.showReconciliation},
		{http.MethodGet, "/reconciliations/{id}/findings", s.listFindings},
		{http.MethodPost, "/reconciliations/{id}/cancel", s.cancelReconciliation},

		{http.MethodGet, "/projections", s.listProjections},
		{http.MethodPost, "/projections/{name}/rebuild", s.rebuildProjection},

		{http.MethodGet, "/deliveries/parked", s.listParked},
		{http.MethodGet, "/deliveries/{id}", s.showDelivery},
		{http.MethodPost, "/deliveries/{id}/retry", s.retryDelivery},

		{http.MethodGet, "/openapi.json", s.showOpenAPI},
	}, s.accountRoutes()...)
}
