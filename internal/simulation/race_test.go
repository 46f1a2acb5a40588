//go:build race

package simulation_test

// The race detector makes SQLite five to ten times slower, and has little to find where
// one goroutine runs at a time: fewer seeds are tried under it.
const (
	defaultSeeds  = 50
	repeatedSeeds = 5
)
