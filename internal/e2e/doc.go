// Package e2e tests keytrail as a whole beside a real Keycloak with a real webhook
// sender (p2-inc keycloak-events), on SQLite and on PostgreSQL. It has no code but its
// tests: each proves one sentence of what keytrail promises, from the change made in
// Keycloak to the answer that a person reads.
//
//	Keycloak ──▶ tap ──▶ keytrail ──▶ proxy ──▶ Keycloak
//
// The tap stands between the webhook sender and keytrail: it checks signatures on its
// own, sees that a 202 means "committed", and can keep deliveries back. The proxy
// stands between keytrail and the Admin API: it counts what was really sent, answers
// in Keycloak's place, and loses answers.
//
// Every test has a realm of its own. Nothing waits for time: helpers wait for facts,
// with a limit.
package e2e
