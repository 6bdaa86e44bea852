package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/certwright/certwright/storage"
)

// mustStore stores a value.
func mustStore(tb testing.TB, s storage.Storage, key string, value []byte) {
	tb.Helper()
	if err := s.Store(deadline(tb), key, value); err != nil {
		tb.Fatalf("Store(%q): %v", key, err)
	}
}

// wantValue checks what is at key.
func wantValue(tb testing.TB, s storage.Storage, key string, want []byte) {
	tb.Helper()
	got, err := s.Load(deadline(tb), key)
	if err != nil {
		tb.Errorf("Load(%q): %v", key, err)
	} else if !bytes.Equal(got, want) {
		tb.Errorf("Load(%q) = %s, want %s", key, brief(got), brief(want))
	}
}

// wantMissing checks that nothing is at key.
func wantMissing(tb testing.TB, s storage.Storage, key string) {
	tb.Helper()
	if got, err := s.Load(deadline(tb), key); !errors.Is(err, fs.ErrNotExist) {
		tb.Errorf("Load(%q) = %s, error %v; want an error that is fs.ErrNotExist", key, brief(got), err)
	}
}

// wantKeys checks the list below prefix.
func wantKeys(tb testing.TB, s storage.Storage, prefix string, want ...string) {
	tb.Helper()
	got, err := s.List(deadline(tb), prefix)
	if err != nil {
		tb.Errorf("List(%q): %v", prefix, err)
	} else if !slices.Equal(got, want) {
		tb.Errorf("List(%q) = %q, want %q", prefix, got, want)
	}
}

func brief(v []byte) string {
	if len(v) > 40 {
		return fmt.Sprintf("%q... (%d bytes)", v[:40], len(v))
	}
	return fmt.Sprintf("%q", v)
}

func checkMissing(tb testing.TB, b Backend) {
	s := b.Open(tb)
	wantKeys(tb, s, "")
	wantMissing(tb, s, "a")
	mustStore(tb, s, "a/b", []byte("x"))
	for _, key := range []string{"a", "a/b/c", "a/bb", "b", "a/c"} {
		wantMissing(tb, s, key)
		wantKeys(tb, s, "a/b")
		if err := s.Delete(deadline(tb), key); err != nil {
			tb.Errorf("Delete(%q) of a missing key: %v", key, err)
		}
	}
	wantKeys(tb, s, "b")
	wantKeys(tb, s, "a", "a/b")
}

func checkReplace(tb testing.TB, b Backend) {
	s := b.Open(tb)
	for _, v := range []string{"first", "second, longer", "3rd", ""} {
		mustStore(tb, s, "a/b", []byte(v))
		wantValue(tb, s, "a/b", []byte(v))
	}
	wantKeys(tb, s, "", "a/b")
}

// largest is how many bytes a value has that any backend must keep.
const largest = 64 << 10

func checkValues(tb testing.TB, b Backend) {
	s := b.Open(tb)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	values := map[string][]byte{
		"nil": nil, "empty": {}, "byte": {0}, "newline": []byte("\r\n"),
		"every": every, "large": bytes.Repeat(every, largest/len(every)),
	}
	for key, v := range values {
		mustStore(tb, s, "v/"+key, v)
	}
	for key, v := range values {
		wantValue(tb, s, "v/"+key, v)
	}
	wantKeys(tb, s, "v", "v/byte", "v/empty", "v/every", "v/large", "v/newline", "v/nil")
}

// checkOwnSlices changes the slices on the caller's side.
func checkOwnSlices(tb testing.TB, b Backend) {
	s := b.Open(tb)
	v := []byte("value")
	mustStore(tb, s, "a", v)
	clear(v)
	wantValue(tb, s, "a", []byte("value"))
	got, err := s.Load(deadline(tb), "a")
	if err != nil {
		tb.Fatal(err)
	}
	clear(got)
	wantValue(tb, s, "a", []byte("value"))
}

func checkPrefixes(tb testing.TB, b Backend) {
	s := b.Open(tb)
	// In this order they are not sorted, and "-" sorts before "/".
	stored := []string{"ab", "a/b/c", "a-b/c", "a/bc", "A/b", "a%/b", "a_/x", "ax/x", "a/d/e/f/g"}
	for _, key := range stored {
		mustStore(tb, s, key, []byte(key))
	}
	wantKeys(tb, s, "a", "a/b/c", "a/bc", "a/d/e/f/g")
	wantKeys(tb, s, "a/b", "a/b/c")
	wantKeys(tb, s, "a/d", "a/d/e/f/g")
	wantKeys(tb, s, "a/d/e/f", "a/d/e/f/g")
	wantKeys(tb, s, "a/d/e/f/g")
	wantKeys(tb, s, "ab")
	wantKeys(tb, s, "a%", "a%/b")
	wantKeys(tb, s, "a_", "a_/x")
	wantKeys(tb, s, "", "A/b", "a%/b", "a-b/c", "a/b/c", "a/bc", "a/d/e/f/g", "a_/x", "ab", "ax/x")
	for _, key := range stored {
		wantValue(tb, s, key, []byte(key))
	}
}

func checkDelete(tb testing.TB, b Backend) {
	s := b.Open(tb)
	for _, key := range []string{"a/b/c", "a/d", "ab"} {
		mustStore(tb, s, key, []byte(key))
	}
	for range 2 {
		for _, key := range []string{"a/b", "a/d"} { // nothing is at the first
			if err := s.Delete(deadline(tb), key); err != nil {
				tb.Errorf("Delete(%q): %v", key, err)
			}
			wantMissing(tb, s, key)
		}
		wantKeys(tb, s, "", "a/b/c", "ab")
	}
	if err := s.Delete(deadline(tb), "a/b/c"); err != nil {
		tb.Errorf("Delete: %v", err)
	}
	wantKeys(tb, s, "", "ab")
	mustStore(tb, s, "a/d", []byte("again"))
	wantValue(tb, s, "a/d", []byte("again"))
}

// oddKeys are keys that a backend may take for something else, or for another.
func oddKeys() []string {
	long := strings.Repeat("long.", 51) // 255 bytes
	keys := []string{
		"...", ".hidden", "..x", "x..", "dot.", "trailing ", " leading", "two  blanks", "~", "-", "-rf", "_",
		"*", "*.example.com", "_wildcard_.example.com", "wildcard_.example.com", "?", "[a]", "{a,b}", "$HOME", "`x`", "a;b", "a&b", "a|b", "!", "#", "a#b",
		"a:b", "::1", "2001:db8::1", `back\slash`, `"quoted"`, "'", "<a>", "a=b", "a+b", "a@b", "a,b", "(a)",
		"%", "%41", "%2f", "a%2fb", "a%", "%%", "%s", "case", "CASE", "Case",
		"con", "con.txt", "nul", "aux.rec", "COM1", "lpt9", "prn.", "com1.d",
		"locks/x", "lock", "a.lock", "v1.rec", "x.rec/y", "x.json", "x.tmp", ".tmp", "x.lease", "x~", "+", "+x",
		"é", "e\u0301", "字", "\U0001F512", "xn--bcher-kva.example", "bücher.example", "İ", "i̇", "ß", "ss",
		long + "/" + long, strings.Repeat("é", 127), strings.Repeat("A", 255), strings.Repeat("a", 255), strings.Repeat(".", 255),
		strings.Repeat("deep/", 200) + "x",
		"0", "00", "null", "true", "token/Ab-_9", "select 1", "a\u00a0b", "\u200bzero", "\ufeffbom",
	}
	return keys
}

func checkOddKeys(tb testing.TB, b Backend) {
	s := b.Open(tb)
	keys := oddKeys()
	for _, key := range keys {
		if !storage.ValidKey(key) {
			tb.Fatalf("the kit's key %q is not valid", key)
		}
		mustStore(tb, s, key, []byte("value of "+key))
	}
	for _, key := range keys {
		wantValue(tb, s, key, []byte("value of "+key))
	}
	slices.Sort(keys)
	wantKeys(tb, s, "", keys...)
	for _, key := range keys {
		if !storage.ValidKey(key+"x/y") || slices.Contains(keys, key+"x") {
			continue
		}
		mustStore(tb, s, key+"x/y", nil)
		wantKeys(tb, s, key+"x", key+"x/y")
		if err := s.Delete(deadline(tb), key+"x/y"); err != nil {
			tb.Errorf("Delete(%q): %v", key, err)
		}
	}
	wantKeys(tb, s, "", keys...)
}

// badKeys are no keys at all.
func badKeys() []string {
	return []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/.", "./a", "../a", "a/../b", "a/..", "a\x00b", "a\nb", "\x7f", "a\u0085",
		"a\xff", strings.Repeat("a", 256), strings.Repeat("a/", 512) + "a",
	}
}

func checkBadKeys(tb testing.TB, b Backend) {
	s := b.Open(tb)
	ctx := deadline(tb)
	mustStore(tb, s, "a/b", []byte("x"))
	for _, key := range badKeys() {
		_, loaded := s.Load(ctx, key)
		_, listed := s.List(ctx, key)
		if key == "" {
			listed = fs.ErrInvalid // the empty prefix is everything
		}
		errs := map[string]error{"Load": loaded, "Store": s.Store(ctx, key, nil), "Delete": s.Delete(ctx, key), "List": listed}
		for call, err := range errs {
			if !errors.Is(err, fs.ErrInvalid) {
				tb.Errorf("%s(%q): error %v; want one that is fs.ErrInvalid", call, key, err)
			}
			if errors.Is(err, fs.ErrNotExist) {
				tb.Errorf("%s(%q): the error passes for a missing value", call, key)
			}
		}
	}
	wantKeys(tb, s, "", "a/b")
}

// checkManyKeys stores more than a page of common backends.
func checkManyKeys(tb testing.TB, b Backend) {
	s := b.Open(tb)
	const writers, each = 8, 140 // more than 1,000
	want := make([]string, 0, writers*each)
	var wg sync.WaitGroup
	for w := range writers {
		for i := range each {
			want = append(want, fmt.Sprintf("many/%d/%03d", w, i))
		}
		wg.Go(func() {
			ctx := deadline(tb)
			for i := range each {
				if err := s.Store(ctx, fmt.Sprintf("many/%d/%03d", w, i), []byte("x")); err != nil {
					tb.Errorf("Store: %v", err)
				}
			}
		})
	}
	wg.Wait()
	got, err := s.List(deadline(tb), "many")
	if err != nil {
		tb.Fatalf("List: %v", err)
	}
	if !slices.Equal(got, want) {
		tb.Errorf("List gives %d keys of %d, or not in order", len(got), len(want))
	}
}

func checkEndedContext(tb testing.TB, b Backend) {
	s := b.Open(tb)
	mustStore(tb, s, "a", []byte("x"))
	ctx, cancel := context.WithCancel(tb.Context())
	cancel()
	_, loaded := s.Load(ctx, "a")
	_, missing := s.Load(ctx, "b")
	_, listed := s.List(ctx, "")
	errs := map[string]error{
		"Load": loaded, "Load of a missing key": missing, "List": listed,
		"Store": s.Store(ctx, "a", []byte("y")), "Delete": s.Delete(ctx, "a"),
	}
	for call, err := range errs {
		if !isEnded(err) {
			tb.Errorf("%s with an ended context: error %v; want the context's", call, err)
		}
		if errors.Is(err, fs.ErrNotExist) {
			tb.Errorf("%s: an ended context passes for a missing value", call)
		}
	}
	wantValue(tb, s, "a", []byte("x"))
}

// checkBroken looks at the errors of a backend that cannot be reached.
func checkBroken(tb testing.TB, b Backend) {
	if b.Break == nil {
		tb.Skip("Backend.Break is nil")
	}
	s := b.Open(tb)
	mustStore(tb, s, "a", []byte("x"))
	mend := b.Break(tb, s)
	ctx := deadline(tb)
	_, loaded := s.Load(ctx, "a")
	_, missing := s.Load(ctx, "b")
	_, listed := s.List(ctx, "")
	errs := map[string]error{
		"Load": loaded, "Load of a missing key": missing, "List": listed,
		"Store": s.Store(ctx, "a", []byte("y")), "Delete": s.Delete(ctx, "a"),
	}
	mend()
	for call, err := range errs {
		if err == nil {
			tb.Errorf("%s of a broken backend gives no error", call)
		}
		if errors.Is(err, fs.ErrNotExist) {
			tb.Errorf("%s of a broken backend passes for a missing value: %v", call, err)
		}
	}
	wantValue(tb, s, "a", []byte("x"))
}
