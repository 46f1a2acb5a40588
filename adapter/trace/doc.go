// Package trace assembles one story out of the event log and puts it into words.
//
// A [Finder] takes whatever id an operator holds and answers with a [Trace]: the
// one type that the command line, the HTTP API and the pages show. It only reads.
//
// # What belongs to a story
//
// All events that carry the story's correlation id; the events that those name as
// their cause, and the causes of these; and everything that follows from them,
// across correlations. What merely stands beside them is left out: the other
// effects of a cause that was reached from outside, and the other members of a
// webhook batch. A call or a delivery that is reached from outside is shown whole.
//
// Keycloak reports our own calls back as admin events. Such a delivery has a
// correlation of its own when it arrives; ApiCallEchoed, in the call's correlation,
// links the two. A story that consists of nothing but such deliveries is therefore
// told as the story of the call.
//
// Stories are bounded (see [MaxEvents]): of a longer one the beginning and the end
// are shown, and the trace says so.
//
// # Order
//
// Events stand in the order in which they happened (occurred_at, or for an attempt
// when it went out; then position), except that no event stands before its cause:
// Keycloak's clock is not ours.
package trace
