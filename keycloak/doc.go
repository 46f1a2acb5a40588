// Package keycloak holds Keycloak's own models as keytrail reads them: admin
// events, user events, users, resource paths, error answers and the stamp that
// ties an outbound call to its echo.
//
// The types hold what Keycloak said and nothing else: no interpretation, no
// defaults. Absent and empty are kept apart wherever Keycloak means different
// things by them. Facts about Keycloak in the comments were measured on 26.7.3
// and 26.1.4 unless a file or issue is named.
//
// keycloak/webhook decodes what senders push, keycloak/admin reads and writes
// over the Admin API.
package keycloak
