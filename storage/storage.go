// Package storage is where certwright keeps what it must not lose: the contract
// of a storage and of its locks, and three storages that keep it: [Dir] in a
// folder, [Memory], and [Seal], which encrypts what it passes on. A backend of
// your own implements [Storage] and, when it has locks, [Locker]; package
// storagetest says whether it keeps the contract, [NewLease], [LeaseErr] and
// [LeaseTokens] do the part that is the same for all.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The longest key and the longest component of a key, in bytes.
const (
	maxKeyLen       = 1024
	maxComponentLen = 255
)

// maxAround is how many storages around each other are looked through.
const maxAround = 100

// Storage keeps everything certwright must not lose: certificates with their
// keys, accounts, orders in flight and back-off. Any number of instances may
// share one Storage.
//
// A key is one or more non-empty components joined by "/", with no slash at
// either end and no component "." or "..". Components are UTF-8 text without
// control characters, of at most 255 bytes; a whole key has at most 1,024. A
// backend that cannot hold a character escapes it: two keys that differ in a
// single byte are two keys. A key outside these rules is refused with an error
// that satisfies errors.Is(err, fs.ErrInvalid); see [ValidKey]. A prefix is
// taken component by component: "a" is a prefix of "a/b" and not of "ab".
//
// Values of up to 64 KiB must be kept. No key of certwright's is a prefix of
// another, and below v1/<kind>/ nothing is nested further, so a backend need not
// hold a value where it has a folder, nor list recursively more than that.
//
// Every method is safe for concurrent use, from several processes too, honours
// the context, and returns only when its work is done. An error is never folded
// into "missing": a backend that cannot be reached says so.
//
// Package storagetest checks that a Storage keeps this contract.
type Storage interface {
	// Load returns the value last stored at key. When there is none the error
	// satisfies errors.Is(err, fs.ErrNotExist). The slice belongs to the caller.
	// A reader that runs beside a writer sees the old value or the new one,
	// never a mix and never nothing.
	Load(ctx context.Context, key string) ([]byte, error)

	// Store puts value at key, replacing what was there in one step. When it
	// returns nil the value is durable: it outlives a crash of the process and
	// of the host. When it returns an error the old value is still whole; if
	// the failure came after the replacement, the new one is there instead,
	// just as whole. An empty value is a value. A nil value is an empty one.
	// Store does not keep the slice.
	Store(ctx context.Context, key string, value []byte) error

	// Delete removes the value at key and nothing below it. A missing key is
	// not an error.
	//
	// A backend that can, refuses a Store or a Delete under a lease that has
	// ended: see LeaseErr and LeaseTokens.
	Delete(ctx context.Context, key string) error

	// List returns, sorted, the full keys of all values below prefix; the
	// value at prefix itself is not among them. An empty prefix lists
	// everything. When there are none the list is empty and the error nil.
	List(ctx context.Context, prefix string) ([]string, error)
}

// ErrDamaged means that a value is there but is not what was stored: cut, changed
// or moved. Nothing will make it good again; it may be replaced.
var ErrDamaged = errors.New("value is damaged")

// Unwrapper is a Storage around another one, as Seal returns it, with the same keys:
// a storage that puts a prefix in front of them is none.
type Unwrapper interface {
	// Unwrap returns the storage inside.
	Unwrap() Storage
}

// Find returns the first of s and the storages inside it, from the outside in,
// that is a T: a type such as *Dir, or an interface.
func Find[T any](s Storage) (T, bool) {
	for range maxAround { // one may return itself
		if found, ok := s.(T); ok {
			return found, true
		}
		u, ok := s.(Unwrapper)
		if !ok {
			break
		}
		s = u.Unwrap()
	}
	var none T
	return none, false
}

// LockerOf returns the Locker of a storage: s itself, or the first inside it
// that is one. It reports false when there is none.
func LockerOf(s Storage) (Locker, bool) { return Find[Locker](s) }

// ValidKey reports whether key follows the rules that [Storage] states. It is
// meant for backends, which refuse any other key, and is safe for concurrent
// use.
func ValidKey(key string) bool {
	if key == "" || len(key) > maxKeyLen || !utf8.ValidString(key) {
		return false
	}
	if strings.ContainsFunc(key, unicode.IsControl) {
		return false
	}
	for c := range strings.SplitSeq(key, "/") {
		if c == "" || c == "." || c == ".." || len(c) > maxComponentLen {
			return false
		}
	}
	return true
}

// checkCall returns the error that a storage call has before it starts: an
// ended context or a key outside the rules.
func checkCall(ctx context.Context, verb, key string) error {
	if !ValidKey(key) {
		return fmt.Errorf("%s key %q: not a valid key: %w", verb, key, fs.ErrInvalid)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s key %q: %w", verb, key, endOf(ctx))
	}
	return nil
}

// checkList is checkCall for a list's prefix, which may be empty.
func checkList(ctx context.Context, prefix string) error {
	if prefix == "" && ctx.Err() == nil {
		return nil
	}
	if prefix == "" {
		return fmt.Errorf("listing keys: %w", endOf(ctx))
	}
	return checkCall(ctx, "listing", prefix)
}

// below reports whether key is below prefix, component by component.
func below(key, prefix string) bool {
	if prefix == "" {
		return true
	}
	return len(key) > len(prefix) && key[len(prefix)] == '/' && key[:len(prefix)] == prefix
}

// endOf says why ctx ended: its error and, when that says more, its cause.
func endOf(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == nil || cause == err { //nolint:errorlint // the very same value, not its kind
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}
