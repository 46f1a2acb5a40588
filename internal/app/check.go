package app

import (
	"context"

	"github.com/keytrail/keytrail/adapter"
	"github.com/keytrail/keytrail/adapter/check"
)

// CheckKeycloak finds out whether Keycloak is set up for a realm as keytrail needs it,
// and whether an event arrives. Errors are those of check.Checker, and
// keycloak_not_configured.
func (a *App) CheckKeycloak(ctx context.Context, realm string) (check.Report, error) {
	if a.Keycloak == nil {
		return check.Report{}, adapter.Errorf(adapter.CodeKeycloakNotConfigured, "no Keycloak is configured, so there is nothing to check").
			WithTry("%s", adapter.CodeKeycloakNotConfigured.Explain().Next)
	}
	c := &check.Checker{
		Keycloak: a.Keycloak, Log: a.Store, Codec: a.Codec,
		WebhookURL: a.Config.PublicURLAt(a.Config.Listen) + "/webhooks/keycloak",
	}
	return c.Check(ctx, realm)
}
