//go:build race

package certwright_test

// raceEnabled says whether the race detector is on, which makes everything
// about four times slower.
const raceEnabled = true
