//go:build race

package judge

// raceDetector makes all code some ten times slower.
const raceDetector = true
