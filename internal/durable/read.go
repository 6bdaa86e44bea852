package durable

import (
	"fmt"
	"io"
	"os"
)

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
	// Looked at before it is opened: opening a FIFO would wait for a writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, ErrNotRegular
	}
	f, err := openRead(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // reading loses nothing
	return readAll(f, info.Size(), limit)
}

// readAll reads r to its end. A file of size bytes, as it is expected to be,
// takes one call of Read.
func readAll(r io.Reader, size, limit int64) ([]byte, error) {
	if size > limit {
		return nil, tooLarge(limit)
	}
	data := make([]byte, size+1) // a byte more, to see the end
	have := 0
	for {
		n, err := r.Read(data[have:])
		have += n
		switch {
		case int64(have) > limit:
			return nil, tooLarge(limit)
		case err == io.EOF: //nolint:errorlint // a Reader returns it as it is
			return data[:have], nil
		case err != nil:
			return nil, err
		case int64(have) == size:
			return data[:have], nil
		case have == len(data): // it grows
			data = append(data, make([]byte, len(data)+512)...)
		}
	}
}

func tooLarge(limit int64) error {
	return fmt.Errorf("more than %d bytes: %w", limit, ErrTooLarge)
}
