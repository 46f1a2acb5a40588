// Package keycloaktest is a fake Keycloak: the part of the Admin REST API, the token
// endpoint and the webhook sender (p2-inc keycloak-events) that keytrail uses, with
// their measured quirks. Demos and tests run against it; the suite in
// keycloaktest/contract runs against it and against a real server, so that it
// cannot drift from the truth.
//
// What a real server does now and then, or to others only, is done on demand: see Fault,
// and docs/keycloak-notes.md for how each was confirmed.
//
// Facts come from Keycloak 26.7.3 with keycloak-events 0.59, measured, unless a
// comment says otherwise. What the fake does not know it answers with 404, as
// Keycloak does for an unknown path.
package keycloaktest
