package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadFileRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, make([]byte, 11), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		path  string
		limit int64
		want  error
	}{
		{path, 11, nil},
		{path, 10, ErrTooLarge},
		{dir, 10, ErrNotRegular},
		{filepath.Join(dir, "none"), 10, fs.ErrNotExist},
	}
	for _, tt := range tests {
		_, err := ReadFile(tt.path, tt.limit)
		if !errors.Is(err, tt.want) {
			t.Errorf("ReadFile(%q, %d): %v, want %v", tt.path, tt.limit, err, tt.want)
		}
		if err != nil && !strings.Contains(err.Error(), tt.path) {
			t.Errorf("the error %q does not name %q", err, tt.path)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	path := filepath.Join(b.TempDir(), "f")
	if err := os.WriteFile(path, make([]byte, 3500), 0o600); err != nil {
		b.Fatal(err)
	}
	for name, read := range map[string]func() ([]byte, error){
		"ReadFile":    func() ([]byte, error) { return ReadFile(path, 1<<20) },
		"os.ReadFile": func() ([]byte, error) { return os.ReadFile(path) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := read(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
