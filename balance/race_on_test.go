//go:build race

package balance

// The race detector makes a simulation ten times as slow, and there is nothing to find in one goroutine.
const raceOn = true
