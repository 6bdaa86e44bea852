// Package record writes and reads what certwright stores: JSON with a version,
// a kind and a checksum around the body, so that a torn, mixed-up or foreign
// value is told from a good one.
//
//	{"v":1,"kind":"certificate","sum":"<hex SHA-256>","body":{...}}
//
// The checksum is over the body in compact form; white space between tokens
// does not count. [Decode] reads a record into a type; [Open] with [Fields] and
// [Unquote] reads the same from an untouched record in a few microseconds. All
// functions are safe for concurrent use.
package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// Version is the version of the form that [Encode] writes and the newest that
// [Decode] reads.
const Version = 1

// MaxSize is the largest record, in bytes, that is written or read.
const MaxSize = 1 << 20

var (
	// ErrDamaged means that a value is not a whole record of the wanted kind.
	// The error that wraps it gives the reason.
	ErrDamaged = errors.New("record is damaged")

	// ErrNewer means that a record was written by a newer version, which a
	// caller must leave as it is.
	ErrNewer = errors.New("record was written by a newer version")
)

type envelope struct {
	Kind string          `json:"kind"`
	Sum  string          `json:"sum"`
	Body json.RawMessage `json:"body"`
}

// Encode returns the record of a body, which must be something that marshals to
// JSON other than null, with a line feed at its end. It fails when the body
// cannot be marshalled or the record would be longer than MaxSize.
func Encode(kind string, body any) ([]byte, error) {
	var compact bytes.Buffer
	enc := json.NewEncoder(&compact)
	// An editor or a tool that rewrites a record by hand would write <, > and &
	// as they are, and the sum must hold then.
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		return nil, fmt.Errorf("encoding record %q: %w", kind, err)
	}
	raw := bytes.TrimSpace(compact.Bytes())
	if string(raw) == "null" {
		return nil, fmt.Errorf("encoding record %q: there is no body", kind)
	}
	quoted, err := json.Marshal(kind)
	if err != nil {
		return nil, fmt.Errorf("encoding record %q: %w", kind, err)
	}
	out := fmt.Appendf(nil, "{\"v\":%d,\"kind\":%s,\"sum\":%q,\"body\":%s}\n", Version, quoted, sum(raw), raw)
	if len(out) > MaxSize {
		return nil, fmt.Errorf("encoding record %q: it is %d bytes, more than %d", kind, len(out), MaxSize)
	}
	return out, nil
}

// Decode reads a record of the given kind into body, a pointer. White space
// around and between tokens, a byte order mark, and fields that body does not
// have are let be. Every error but that of an unusable body pointer wraps
// ErrDamaged or ErrNewer; what body holds after an error is not defined.
func Decode(kind string, data []byte, body any) error {
	raw, err := Open(kind, data)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, body); err != nil {
		var unusable *json.InvalidUnmarshalError
		if errors.As(err, &unusable) {
			return fmt.Errorf("decoding record %q: %w", kind, err)
		}
		return fmt.Errorf("decoding record %q: %w: its body does not fit: %w", kind, ErrDamaged, err)
	}
	return nil
}

// Open checks everything around the body of a record of the given kind and
// returns the body, compact JSON, which [NewFields] reads. It may be a part of
// data. Of a record that is byte for byte as [Encode] wrote it nothing but the
// checksum is looked at, and Open allocates nothing. Every error wraps
// ErrDamaged or ErrNewer.
func Open(kind string, data []byte) ([]byte, error) {
	if body, ok := openWhole(kind, data); ok {
		return body, nil
	}
	body, err := open(kind, data)
	if err != nil {
		return nil, fmt.Errorf("decoding record %q: %w", kind, err)
	}
	return body, nil
}

// openWhole is Open for a record that is as Encode writes it. That its sum holds
// says that its body is what was encoded. It is false for any other.
func openWhole(kind string, data []byte) ([]byte, bool) {
	const (
		head = `{"v":1,"kind":"`
		mid  = `","sum":"`
		last = `","body":`
		tail = "}\n"
	)
	sumAt := len(head) + len(kind) + len(mid)
	bodyAt := sumAt + 2*sha256.Size + len(last)
	bodyEnd := len(data) - len(tail)
	if len(data) > MaxSize || bodyEnd-bodyAt < len("{}") || !plainName(kind) {
		return nil, false
	}
	body := data[bodyAt:bodyEnd:bodyEnd]
	if string(data[:len(head)]) != head || string(data[len(head):len(head)+len(kind)]) != kind ||
		string(data[sumAt-len(mid):sumAt]) != mid || string(data[bodyAt-len(last):bodyAt]) != last ||
		string(data[bodyEnd:]) != tail || body[0] != '{' || body[len(body)-1] != '}' {
		return nil, false
	}
	s := sha256.Sum256(body)
	var text [2 * sha256.Size]byte
	hex.Encode(text[:], s[:])
	return body, string(text[:]) == string(data[sumAt:sumAt+len(text)])
}

// plainName reports whether a name is the same in JSON text.
func plainName(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// open is Open for a record of any form.
func open(kind string, data []byte) ([]byte, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%w: it is %d bytes, more than %d", ErrDamaged, len(data), MaxSize)
	}
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\ufeff")))
	if len(data) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrDamaged)
	}
	if data[0] == '<' {
		return nil, fmt.Errorf("%w: it is an HTML or XML page", ErrDamaged)
	}
	// The version comes first: a newer record may have another form.
	var version struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return nil, fmt.Errorf("%w: it is cut short or not JSON: %w", ErrDamaged, err)
	}
	if version.V > Version {
		return nil, fmt.Errorf("%w: version %d, this one reads up to %d", ErrNewer, version.V, Version)
	}
	if version.V < 1 {
		return nil, fmt.Errorf("%w: it has no version", ErrDamaged)
	}
	var env envelope
	if err := json.Unmarshal(data, &env); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if env.Kind != kind {
		return nil, fmt.Errorf("%w: its kind is %.40q", ErrDamaged, env.Kind)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, env.Body); err != nil || compact.String() == "null" {
		return nil, fmt.Errorf("%w: it has no body", ErrDamaged)
	}
	if env.Sum != sum(compact.Bytes()) {
		return nil, fmt.Errorf("%w: its checksum does not match", ErrDamaged)
	}
	return compact.Bytes(), nil
}

func sum(compact []byte) string {
	s := sha256.Sum256(compact)
	return hex.EncodeToString(s[:])
}
