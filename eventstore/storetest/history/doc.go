// Package history finds out, in the manner of Jepsen, whether an event store keeps
// its promises while things go wrong.
//
// Clients append, read and subscribe at random through several handles on one
// database, as several processes would. Meanwhile faults are injected: connections
// are cut and stalled, servers crash, processes are killed and frozen. Every
// operation is recorded with what it was asked, what it answered, and its place in
// one order of calls and returns (Op). Afterwards Check decides from the record
// alone. So a history that failed can be kept and checked again, and the checker
// itself is tested with histories that are known to be wrong.
//
// # What an outcome means
//
// An append ends in one of six ways: ok, conflict and reused are answers; failed
// says that it certainly has not happened; unknown says that it may have happened,
// or may still happen; broken is an error that the contract of eventstore does not
// know, which is a finding by itself. A client repeats an append of unknown outcome
// with the same ids until it knows: outcomes are found out and not guessed.
//
// # What is checked
//
// The log is read once more when all is over. It is a list of committed appends in
// one total order, so the state of the store is a number, how far the log had been
// written, and everything that was ever observed bounds that number from below and
// from above: whoever sees version 3 of a stream but not version 4 sees a state from
// the append of the one to just before the append of the other. The history is
// linearizable, over all streams and not only each, if and only if
//
//   - no operation bounds the state to below what an operation that had returned
//     before has seen already, and
//   - nothing is seen, and no position is given away, that depends on an append
//     which is called only after that.
//
// These are conditions on pairs of operations, because the order of commits is
// known: points in time that satisfy all of them exist when they do for every pair
// (Helly's theorem for intervals). The check therefore is exact, and takes no longer
// than sorting. The cost is that the final log is believed where nothing
// contradicts it.
//
// Beside that: positions and versions have no gaps, no event is lost, doubled,
// altered or made up, appends are whole, expected versions held, and each
// subscription is the log from its start without gap or repetition, to its end.
package history
