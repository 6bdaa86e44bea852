package certwright

import "context"

// Storage keeps everything certwright must not lose: certificates with their
// keys, accounts, orders in flight and back-off. Any number of instances may
// share one Storage.
//
// A key is one or more non-empty components joined by "/", with no slash at
// either end and no component "." or "..". Components are UTF-8 text without
// control characters; a backend that cannot hold a character escapes it. A
// prefix is taken component by component: "a" is a prefix of "a/b" and not of
// "ab". A key may be a prefix of other keys and hold a value as well.
//
// Every method is safe for concurrent use, from several processes too, honours
// the context, and returns only when its work is done. An error is never folded
// into "missing": a backend that cannot be reached says so.
type Storage interface {
	// Load returns the value last stored at key. When there is none the error
	// satisfies errors.Is(err, fs.ErrNotExist). The slice belongs to the caller.
	// A reader that runs beside a writer sees the old value or the new one,
	// never a mix and never nothing.
	Load(ctx context.Context, key string) ([]byte, error)

	// Store puts value at key, replacing what was there in one step. When it
	// returns nil the value is durable: it outlives a crash of the process and
	// of the host. When it returns an error the old value is still whole. An
	// empty value is a value.
	Store(ctx context.Context, key string, value []byte) error

	// Delete removes the value at key and nothing below it. A missing key is
	// not an error.
	Delete(ctx context.Context, key string) error

	// List returns, sorted, the full keys of all values below prefix; the
	// value at prefix itself is not among them. An empty prefix lists
	// everything. When there are none the list is empty and the error nil.
	List(ctx context.Context, prefix string) ([]string, error)
}
