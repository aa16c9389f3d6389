//go:build !race

package balance

const raceOn = false
