package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// ErrTooLarge means that a file is longer than the caller's limit.
var ErrTooLarge = errors.New("file too large")

// ErrNotRegular means that something other than a file is in a file's place.
var ErrNotRegular = errors.New("not a regular file")

// ReadFile reads the whole regular file at path, of at most limit bytes; a
// longer one gives ErrTooLarge and anything but a file ErrNotRegular. On Windows
// it tries again for two seconds while a writer is in the way.
func ReadFile(path string, limit int64) ([]byte, error) {
	data, err := readRegular(path, limit)
	if err != nil {
		return nil, fmt.Errorf("reading file %q: %w", path, err)
	}
	return data, nil
}

func readRegular(path string, limit int64) ([]byte, error) {
	f, err := openRead(path) // which does not wait for the writer of a FIFO
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // reading loses nothing
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, ErrNotRegular
	}
	var data bytes.Buffer
	data.Grow(int(min(info.Size(), limit)) + bytes.MinRead)
	if _, err := data.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return nil, err
	}
	if int64(data.Len()) > limit {
		return nil, fmt.Errorf("more than %d bytes: %w", limit, ErrTooLarge)
	}
	return data.Bytes(), nil
}
