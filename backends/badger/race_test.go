//go:build race

package badger

// raceDetector is on: see TestValueLog.
const raceDetector = true
