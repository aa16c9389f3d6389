//go:build !race

package diagnose

// RaceDetector makes all code some ten times slower.
const RaceDetector = false
