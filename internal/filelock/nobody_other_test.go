//go:build unix && !linux

package filelock_test

import (
	"os"
	"testing"
)

// asNobody reports whether the test has no more rights than files say.
func asNobody(*testing.T) bool { return os.Geteuid() != 0 }
