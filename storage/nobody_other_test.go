//go:build !linux

package storage

import (
	"os"
	"testing"
)

// asNobody reports whether the test has no more rights than files say.
func asNobody(*testing.T) bool { return os.Geteuid() > 0 }
