package records

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The first line of a record.
const (
	product = "certwright "
	version = 1
)

// What is wrong with a first line, or with what follows it.
var (
	errLine = errors.New("its first line is missing or not whole")
	errSize = errors.New("it has been cut short or edited: it is not as long as its first line says")
	errSum  = errors.New("its content has changed: the checksum does not match")
)

// frame returns a body with its first line before it.
func frame(kind string, body []byte) []byte {
	sum := sha256.Sum256(body)
	out := make([]byte, 0, len(body)+len(kind)+128)
	out = fmt.Appendf(out, "%s%s %d sha256 %x size %d\n", product, kind, version, sum, len(body))
	return append(out, body...)
}

// unframe returns what follows the first line of a record, with an error that
// says whether it is what was stored: nil, ErrNewer, errLine, errSize, errSum, or
// one that says that it is a record of another kind. When there is no such line
// at all the body is all of data.
func unframe(kind string, data []byte) (body []byte, err error) {
	line, body, _ := bytes.Cut(data, []byte("\n"))
	rest, ok := bytes.CutPrefix(line, []byte(product))
	if !ok {
		return data, errLine
	}
	f := strings.Split(string(rest), " ")
	if len(f) < 2 {
		return body, errLine
	}
	if n, err := strconv.ParseUint(f[1], 10, 31); err == nil && n > version {
		return body, ErrNewer
	}
	if len(f) != 6 || f[1] != "1" || f[2] != "sha256" || f[4] != "size" {
		return body, errLine
	}
	if f[0] != kind {
		return body, fmt.Errorf("it is a record of the kind %.40q, not %q", f[0], kind)
	}
	if f[5] != strconv.Itoa(len(body)) {
		return body, errSize
	}
	sum := sha256.Sum256(body)
	var text [2 * sha256.Size]byte
	hex.Encode(text[:], sum[:])
	if f[3] != string(text[:]) {
		return body, errSum
	}
	return body, nil
}

// loadJSON reads the record of a kind at a key into v.
func (r *Records) loadJSON(ctx context.Context, key, kind string, v any) error {
	value, err := r.load(ctx, key)
	if err != nil {
		return err
	}
	return r.readJSON(key, kind, value, v)
}

// readJSON is loadJSON for a value that was loaded.
func (r *Records) readJSON(key, kind string, value []byte, v any) error {
	err := decodeJSON(kind, value, v)
	r.noteNewer(key, err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNewer):
		return fmt.Errorf("reading %q: %w", key, err)
	}
	return &DamagedError{Key: key, Err: err}
}

// decodeJSON reads a record whose body is JSON.
func decodeJSON(kind string, value []byte, v any) error {
	body, err := unframe(kind, value)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("its content does not fit: %w", err)
	}
	return nil
}

// storeJSON makes v the record of a kind at a key.
func (r *Records) storeJSON(ctx context.Context, key, kind string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("storing %q: %w", key, err)
	}
	return r.store(ctx, key, frame(kind, append(body, '\n')))
}
