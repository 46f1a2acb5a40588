// Package reconcile compares what keytrail believes about a realm's users with what
// Keycloak says, and records every difference that cannot be explained otherwise.
//
// A run goes through these steps:
//
//  1. It catches up: events are pulled and folded to the head of the log, so that
//     belief is as new as it can be.
//  2. It lists. Who has which role, group and organization is swept, one list for each
//     of them, where that takes fewer requests than asking each user; then live users
//     are read page by page and compared with the projection. What agrees is counted;
//     what does not is only noted as suspect.
//  3. It validates. A listing that is empty, short of Keycloak's own count, cut or
//     refused makes the run invalid: nobody is called missing because of it. A list of
//     memberships that fails, or may not be read, leaves out its field: the run says so,
//     and a drift in that field stands.
//  4. It judges. Every suspect is read again, alone, and its stream is folded anew.
//     Only what still differs, is older than the settle time and has no write of ours
//     under way is drift. A write whose outcome is still unknown once it can no longer be
//     under way explains nothing: the finding names it. A believed user is missing only
//     once Keycloak has answered "User not found" for that very user.
//  5. It records: DriftDetected where a drift appears, changes or ends (a known one
//     is only counted), then ReconciliationCompleted, or ReconciliationAborted.
//
// Nothing is ever written to Keycloak. What was never believed cannot drift, so
// fields never seen are adopted (UserApiObserved), and the first complete run of a
// realm adopts the users never heard of (UserApiBaselined).
//
// A run can be cancelled, by any process: one event on its stream ends it, and it looks
// for that before each request.
//
// Baseline is the run that compares nothing: it adopts every live user as the starting
// point, and is resumable.
//
// What a sweep tells holds when it began or later, so what is adopted from it is dated
// to its beginning: every event since then wins over it.
//
// A run keeps 24 bytes for each live user, 16 for each membership and a bounded number
// of suspects, never a user list. Its stream is written under optimistic locking and its events have
// ids derived from run and user, so a second run at the same time costs reads but
// corrupts nothing; one run at a time for each realm is the caller's business, by
// a lease.
package reconcile
