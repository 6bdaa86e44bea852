package storage

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// leakOptions leaves out what ran before.
func leakOptions() []goleak.Option { return []goleak.Option{goleak.IgnoreCurrent()} }

// namesIn returns the names in a folder.
func namesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
