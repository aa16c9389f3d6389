//go:build race

package rollout

// raceDetector makes all code some ten times slower.
const raceDetector = true
