package storagetest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/certwright/certwright/storage"
)

// stamped returns the n-th of a row of values that tell whether they are whole;
// each has another length.
func stamped(n int) []byte {
	payload := bytes.Repeat([]byte{byte('a' + n%26)}, 100+n%7*3000)
	sum := sha256.Sum256(payload)
	return append(sum[:], payload...)
}

// isWhole reports whether v is a value of stamped.
func isWhole(v []byte) bool {
	if len(v) < sha256.Size {
		return false
	}
	sum := sha256.Sum256(v[sha256.Size:])
	return bytes.Equal(sum[:], v[:sha256.Size])
}

// readUntil loads key until done is closed and checks that each value is whole.
func readUntil(tb testing.TB, s storage.Storage, key string, done <-chan struct{}) {
	ctx := deadline(tb)
	for {
		v, err := s.Load(ctx, key)
		if err != nil {
			tb.Errorf("Load beside a writer: %v", err)
			return
		}
		if !isWhole(v) {
			tb.Errorf("Load beside a writer gives a value that nobody stored: %s", brief(v))
			return
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// checkWholeValues lets readers run beside writers of one key.
func checkWholeValues(tb testing.TB, b Backend) {
	s := b.Open(tb)
	mustStore(tb, s, "k", stamped(0))
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		readers.Go(func() { readUntil(tb, s, "k", done) })
	}
	for w := range 4 {
		writers.Go(func() {
			ctx := deadline(tb)
			for i := range short(100, 20) {
				if err := s.Store(ctx, "k", stamped(4*i+w)); err != nil {
					tb.Errorf("Store beside another: %v", err)
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	if v, err := s.Load(deadline(tb), "k"); err != nil || !isWhole(v) {
		tb.Errorf("Load after all = %s, %v", brief(v), err)
	}
}

// checkNeighbours stores and deletes keys that share prefixes, all at once.
func checkNeighbours(tb testing.TB, b Backend) {
	s := b.Open(tb)
	mustStore(tb, s, "a/stays", []byte("x"))
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			ctx := deadline(tb)
			key := fmt.Sprintf("a/b/c/%d", w)
			for range short(50, 10) {
				if err := s.Store(ctx, key, []byte(key)); err != nil {
					tb.Errorf("Store(%q) beside the Delete of others: %v", key, err)
				}
				if v, err := s.Load(ctx, key); err != nil || string(v) != key {
					tb.Errorf("Load(%q) of what was just stored = %s, %v", key, brief(v), err)
				}
				if keys, err := s.List(ctx, "a"); err != nil || !slices.Contains(keys, key) || !slices.Contains(keys, "a/stays") {
					tb.Errorf("List beside others = %q, %v; %q is missing", keys, err, key)
				}
				if err := s.Delete(ctx, key); err != nil {
					tb.Errorf("Delete(%q): %v", key, err)
				}
			}
		})
	}
	wg.Wait()
	wantKeys(tb, s, "", "a/stays")
}

// openAt opens the address of a backend in this process.
func openAt(tb testing.TB, b Backend, address string) storage.Storage {
	tb.Helper()
	if b.Opener.Open == nil {
		tb.Fatal("storagetest: Backend.Address is set and Backend.Opener is not")
	}
	s, err := b.Opener.Open(address)
	if err != nil {
		tb.Fatalf("opening %q: %v", address, err)
	}
	return s
}

// needAddress skips the test of a backend that has none.
func needAddress(tb testing.TB, b Backend) string {
	tb.Helper()
	if b.Address == nil {
		tb.Skip("Backend.Address is nil")
	}
	return b.Address(tb)
}

// checkReopen looks for values through a storage that is opened anew.
func checkReopen(tb testing.TB, b Backend) {
	address := needAddress(tb, b)
	s := openAt(tb, b, address)
	mustStore(tb, s, "a", []byte("old"))
	mustStore(tb, s, "a", []byte("new"))
	mustStore(tb, s, "gone", []byte("x"))
	mustStore(tb, s, "b/empty", nil)
	if err := s.Delete(deadline(tb), "gone"); err != nil {
		tb.Fatal(err)
	}
	beside := openAt(tb, b, address)
	wantValue(tb, beside, "a", []byte("new"))
	for _, c := range []storage.Storage{s, beside} {
		if err := closeStorage(c); err != nil {
			tb.Errorf("Close: %v", err)
		}
	}
	again := openAt(tb, b, address)
	if c, ok := again.(io.Closer); ok {
		defer c.Close() //nolint:errcheck // tested above
	}
	wantValue(tb, again, "a", []byte("new"))
	wantValue(tb, again, "b/empty", nil)
	wantMissing(tb, again, "gone")
	wantKeys(tb, again, "", "a", "b/empty")
}

// checkProcesses reads beside writers in other processes, and looks for what a
// process stored right before it was killed.
func checkProcesses(tb testing.TB, b Backend) {
	address := needAddress(tb, b)
	s := openAt(tb, b, address)
	defer closeStorage(s) //nolint:errcheck // tested by checkReopen
	mustStore(tb, s, "k", stamped(0))
	var children []*child
	for range 2 {
		children = append(children, startChild(tb, b, task{Role: "write", Address: address, Key: "k", Count: short(200, 20)}))
	}
	done := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() { readUntil(tb, s, "k", done) })
	for _, c := range children {
		c.say("go")
	}
	for _, c := range children {
		c.want("done")
		c.kill()
	}
	close(done)
	reader.Wait()
	for _, c := range children {
		wantValue(tb, s, fmt.Sprintf("last/%d", c.pid()), []byte("stored"))
	}
}
