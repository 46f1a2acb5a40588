// Package simulation runs the whole of keytrail in one process, in one order, out of
// one number. It has no code but its tests.
//
// A run is a Keycloak (the fake one, without sockets), people who change its users there,
// webhook deliveries that are late, lost, doubled and out of order, and a keytrail with
// its parts as the wiring puts them together: webhook endpoint, recorder, poller,
// interpreter, settler, observer, commands, projections, reconciler. Its event store is
// eventstore/memory, which refuses appends, loses answers and crashes on request; its
// read models are in SQLite. Requests to Keycloak are lost, refused, and answered after
// the caller has given up. The process dies at any of these points and is started
// again. Then the faults end, everything settles, and what is recorded is compared with
// what Keycloak knows happened.
//
//	KEYTRAIL_SIMULATION_SEED=42 go test ./internal/simulation -run TestSimulation
//
// repeats the run of one seed; KEYTRAIL_SIMULATION_SEEDS says how many seeds are tried,
// KEYTRAIL_SIMULATION_FROM which is the first.
//
// # One order
//
// The parts are built for concurrency, and stay as they are. Each step that is begun (a
// delivery, a command, a poll, a projection's catching up) is a goroutine, and stops
// before and after each append and each request; the scheduler draws from the seed who
// goes on, so that steps interleave where processes do: between their effects. Only
// one goroutine can run at any moment, since the scheduler goes on when all others are
// blocked for good. Both that and the clock are testing/synctest's: inside its bubble
// time stands still while anybody runs, which makes pauses, timeouts and backoffs of our
// code and of libraries a matter of the seed as well. It was chosen over a clock handed
// to everybody because go-retryablehttp, x/time/rate and context.WithTimeout take none. The
// scheduler moves time by an odd number of nanoseconds with every draw, so that no two
// timers end at one moment.
//
// Ids come from the seed too (internal/newid), and so does all other randomness
// (testing/cryptotest). Each projection has an engine of its own, because one engine
// folds its projections in parallel. A crash is not a panic: it makes every store
// operation and request of that process fail for good, so that its goroutines run out
// without an effect.
//
// What a run records is therefore the same to the byte each time: a test holds it to
// that, over the whole log with ids and times.
package simulation
