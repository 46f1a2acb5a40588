//go:build !race

package simulation_test

const (
	defaultSeeds = 250
	// repeatedSeeds is how many seeds are run twice to see that they record the same.
	repeatedSeeds = 25
)
