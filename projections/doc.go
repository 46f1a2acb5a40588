// Package projections keeps read models up to date with the event log.
//
// A Projection folds events into tables of its own; its rows and its checkpoint
// commit in one transaction. The checkpoint is a compare-and-set on what the fold
// started from, so any number of processes may run the same projection: of two that
// fold the same events one commits, the other rolls back, reads the checkpoint again
// and goes on from there. Nothing is folded twice and nothing is left out, whatever
// crashes.
//
// A Consumer (a process manager, such as the interpreter of deliveries) has effects
// outside its tables: it appends events. Its checkpoint is written after its effects,
// so they may be repeated after a crash and have to be idempotent.
//
// # Invariant
//
// The rows of a projection whose checkpoint is p are the fold of exactly the events
// at or below p. Incremental folding and a rebuild therefore give the same rows.
//
// # Strides
//
// An Accumulator keeps the rows that it has folded in memory, over several batches and
// from one write to the next, and the engine writes those that have changed together
// with the checkpoint: at most thirty batches (on SQLite ten) where a projection is read, and what fits
// into Options.Memory or is folded in 20 s in a rebuild (on SQLite, twenty batches). What is held is true as long as
// the checkpoint is where this process has put it; else it is thrown away. A crash costs
// the batches since the last write.
//
// A rebuild that a person asked for starts over after a crash. It need not write before
// the end, and where its rows do not fit into the memory it reads the log again for each
// part of them, if the projection is Divisible.
//
// # Rebuild
//
// A rebuild folds the whole log into shadow tables (the table's name and a suffix)
// with a checkpoint of their own, while the live tables are read and kept current.
// Once the shadow has caught up it takes the live tables' names, and its checkpoint
// the live one's place, in one transaction. A rebuild that was interrupted goes on
// where it stopped when the program changed a projection's Version, and starts over
// when a person asks for it.
//
// # Failure
//
// An error stops its projection where it is: it is shown in the status with the event
// that caused it, tried again with growing pauses, and never skipped. The others go
// on.
package projections
