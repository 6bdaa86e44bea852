package durable

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

// Both ways of reading keep the same promises.
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

// What a file is said to hold and what it then gives may differ.
func TestReadAll(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 400)
	whole := int64(len(content))
	fault := errors.New("fault")
	tests := []struct {
		name  string
		r     io.Reader
		size  int64
		limit int64
		want  error
	}{
		{"as said", bytes.NewReader(content), whole, whole, nil},
		{"shorter", bytes.NewReader(content), whole + 5, whole + 9, nil},
		{"longer", bytes.NewReader(content), 5, whole, nil},
		{"of no size", bytes.NewReader(content), 0, whole, nil},
		{"in bytes", iotest.OneByteReader(bytes.NewReader(content)), whole, whole, nil},
		{"in bytes and longer", iotest.OneByteReader(bytes.NewReader(content)), 0, whole, nil},
		{"end with the data", iotest.DataErrReader(bytes.NewReader(content)), whole, whole, nil},
		{"over the limit", bytes.NewReader(content), whole, whole - 1, ErrTooLarge},
		{"grown over the limit", bytes.NewReader(content), 5, whole - 1, ErrTooLarge},
		{"broken", iotest.ErrReader(fault), whole, whole, fault},
		{"broken off", io.MultiReader(bytes.NewReader(content), iotest.ErrReader(fault)), whole + 1, whole + 1, fault},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readAll(tt.r, tt.size, tt.limit)
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if err == nil && !bytes.Equal(got, content) {
				t.Errorf("read %d bytes of %d", len(got), whole)
			}
			if err != nil && got != nil {
				t.Errorf("%d bytes beside an error", len(got))
			}
		})
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
