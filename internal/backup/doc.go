// Package backup writes a store into one file, and a store from such a file.
//
// A backup is a keytrail store in one SQLite file, whichever database it was taken
// from, and a manifest in it that says what it must hold:
//
//   - the log and the raw bodies, with a digest over each;
//   - how far each consumer of the log had come, so that a restored store does not do
//     again what it has done;
//   - what jobs remember in the leases' table (watermarks of polls, last runs, the
//     store's secret). The leases themselves are nobody's in a restored store.
//
// The rest follows from the log and is not restored: the gate is computed from it,
// snapshots and read models are made anew by whoever needs them. So one that is damaged
// in the backup does no harm.
//
// A file gets its name once it is whole, verified and on the disk. Until then it has
// another, which ends in [partialMark] and a random word; what a killed process leaves
// under such a name is removed by the next backup to the same name.
//
// A backup may be read as a store. That folds read models in it, and may append what
// follows from deliveries that were not interpreted yet; it can be restored all the
// same, and what has been added is restored too. The digests cover what was there at
// first.
package backup
