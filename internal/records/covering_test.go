package records_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/records"
)

// stock is a storage with bundles, each told by a word.
func stock(t testing.TB) (*fakeStorage, map[string]string) {
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	ca := newFakeCA(t)
	words := make(map[string]string) // by serial number
	add := func(word, names string, kt certpem.KeyType, ends time.Duration, ca2 string) {
		key := newKey(t, kt)
		list := strings.Fields(names)
		leaf := ca.leaf(key, list, func(c *x509.Certificate) { c.NotAfter = began.Add(ends) })
		b := ca.make(r, records.NewBundle{Names: list, Key: key, CA: ca2, Chain: certpem.EncodeChain(certList(leaf, ca.inter))})
		store(t, r, b)
		words[b.Serial()] = word
	}
	const one, two = "https://one.example", "https://two.example"
	add("a", "a.example", certpem.P256, 50*day, one)
	add("a384", "a.example", certpem.P384, 60*day, two)
	add("wild", "*.example", certpem.P256, 80*day, one)
	add("ab", "a.example b.example", certpem.P256, 70*day, one)
	add("ab+wild", "a.example *.example", certpem.P256, 75*day, two)
	add("over", "over.example", certpem.P256, day/2, one)
	add("sub", "x.sub.example *.sub.example", certpem.P256, 90*day, one)
	add("ip", "2001:db8::1", certpem.P256, 90*day, one)
	add("long", longName(), certpem.P256, 90*day, one)
	return s, words
}

func TestCoveringFindsWhatCovers(t *testing.T) {
	s, words := stock(t)
	tests := []struct{ names, want string }{
		{"a.example", "a384 a ab+wild ab wild"},
		{"b.example", "ab wild ab+wild"},
		{"c.example", "wild ab+wild"},
		{"*.example", "wild ab+wild"},
		{"a.example b.example", "ab ab+wild wild"},
		{"b.example a.example", "ab ab+wild wild"},
		{"*.example a.example", "ab+wild wild"},
		{"b.example c.example", "wild ab+wild"},
		{"over.example", "wild ab+wild"},
		{"x.sub.example", "sub"},
		{"y.sub.example", "sub"},
		{"sub.example", "wild ab+wild"},
		{"x.y.sub.example", ""},
		{"a.example other.test", ""},
		{"2001:db8::1", "ip"},
		{"2001:db8::2", ""},
		{"192.0.2.1", ""},
		{"example", ""},
		{longName(), "long"},
		{"", ""},
	}
	for _, kind := range []string{"headers", "headers lost"} {
		if kind == "headers lost" {
			for key, value := range s.values {
				s.values[key] = value[strings.Index(string(value), "-----BEGIN"):]
			}
		}
		r := records.New(s, records.Options{})
		for _, tt := range tests {
			found, err := r.Covering(t.Context(), strings.Fields(tt.names), now)
			check(t, err)
			var got []string
			for _, f := range found {
				got = append(got, words[f.Serial()])
				if !f.Covers(strings.Fields(tt.names)) {
					t.Errorf("%s, %q: %s does not cover it", kind, tt.names, got)
				}
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("%s, %q: %v, want %v", kind, tt.names, got, tt.want)
			}
		}
	}
}

func TestCoveringTakesThePreviousBundle(t *testing.T) {
	ca := newFakeCA(t)
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	names := []string{"*.example"}
	ahead := ca.bundle(r, names, func(c *x509.Certificate) { c.NotBefore = began.Add(9 * day) })
	prev := ca.bundle(r, names, nil)
	store(t, r, ahead)
	check(t, r.KeepPrevious(t.Context(), records.Stored{Bundle: prev}))
	found, err := r.Covering(t.Context(), []string{"a.example"}, now)
	if err != nil || len(found) != 1 || !found[0].Same(prev) {
		t.Errorf("%v, %v", found, err)
	}
	check(t, r.Delete(t.Context(), certKey(ahead)))
	found, err = records.New(s, records.Options{}).Covering(t.Context(), []string{"a.example"}, now)
	if err != nil || len(found) != 1 || !found[0].Same(prev) {
		t.Errorf("alone: %v, %v", found, err)
	}
}

func TestCoveringOfTenThousandNamesCostsOneList(t *testing.T) {
	s, _ := stock(t)
	s.fail = func(string, string) error { time.Sleep(time.Microsecond); return nil }
	r := records.New(s, records.Options{})
	var wg sync.WaitGroup
	names := make(chan string)
	for range 50 {
		wg.Go(func() {
			for name := range names {
				found, err := r.Covering(context.Background(), []string{name}, now)
				if want := strings.HasSuffix(name, ".example"); err != nil || (len(found) > 0) != want {
					t.Errorf("%s: %d found, %v", name, len(found), err)
				}
			}
		})
	}
	for i := range 10_000 {
		names <- fmt.Sprintf("host-%d.%s", i, []string{"example", "test"}[i%2])
	}
	close(names)
	wg.Wait()
	if s.lists != 1 {
		t.Errorf("%d lists", s.lists)
	}
	// Four have a digest in their ID and are read for their names; two cover.
	loads := 0
	for _, n := range s.loads {
		loads += n
	}
	if loads > 4+2 {
		t.Errorf("%d loads: %v", loads, s.loads)
	}
}

func TestCoveringListsAnewAfterAMinute(t *testing.T) {
	s, _ := stock(t)
	ca := newFakeCA(t)
	synctest.Test(t, func(t *testing.T) {
		r := records.New(s, records.Options{})
		find := func() int {
			found, err := r.Covering(t.Context(), []string{"new.test"}, now)
			check(t, err)
			return len(found)
		}
		if find() != 0 {
			t.Error("something is found that is not there")
		}
		store(t, records.New(s, records.Options{}), ca.bundle(r, []string{"*.test"}, nil))
		time.Sleep(time.Minute - time.Nanosecond)
		if find() != 0 || s.lists != 1 {
			t.Errorf("%d lists within a minute", s.lists)
		}
		time.Sleep(time.Nanosecond)
		if find() != 1 || s.lists != 2 {
			t.Errorf("%d lists after a minute, or nothing found", s.lists)
		}
		check(t, r.Delete(t.Context(), "v1/certs/*.test+p256.pem"))
		time.Sleep(time.Minute)
		if find() != 0 {
			t.Error("what is gone is found")
		}
	})
}

func TestCoveringTakesAListAsAHint(t *testing.T) {
	s, words := stock(t)
	r := records.New(s, records.Options{})
	_, err := r.Covering(t.Context(), []string{"other.test"}, now) // has listed
	check(t, err)
	delete(s.values, "v1/certs/a.example+p256.pem")
	s.put("v1/certs/a.example+p384.pem", []byte("broken"))
	found, err := r.Covering(t.Context(), []string{"a.example"}, now)
	var got []string
	for _, f := range found {
		got = append(got, words[f.Serial()])
	}
	if want := []string{"ab+wild", "ab", "wild"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

func TestCoveringTellsOfAnOutage(t *testing.T) {
	s, _ := stock(t)
	r := records.New(s, records.Options{})
	down := errors.New("cannot be reached")
	s.fail = func(string, string) error { return down }
	if _, err := r.Covering(t.Context(), []string{"a.example"}, now); !errors.Is(err, down) {
		t.Errorf("no list: %v", err)
	}
	s.fail = func(verb, _ string) error { return map[string]error{"load": down}[verb] }
	if _, err := r.Covering(t.Context(), []string{"a.example"}, now); !errors.Is(err, down) {
		t.Errorf("no load: %v", err)
	}
	s.fail = nil
	if found, err := r.Covering(t.Context(), []string{"a.example"}, now); err != nil || len(found) == 0 {
		t.Errorf("%v, %v", found, err)
	}
	// One that cannot be read does not hide the others.
	s.fail = func(verb, key string) error {
		if verb == "load" && strings.Contains(key, "/a.example+p256.") {
			return down
		}
		return nil
	}
	if found, err := records.New(s, records.Options{}).Covering(t.Context(), []string{"a.example"}, now); err != nil || len(found) != 4 {
		t.Errorf("%v, %v", found, err)
	}
}

// slowStorage waits before it lists, until told.
type slowStorage struct {
	*fakeStorage
	wait chan struct{}
}

func (s slowStorage) List(ctx context.Context, prefix string) ([]string, error) {
	select {
	case <-s.wait:
		return s.fakeStorage.List(ctx, prefix)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestCoveringGoesOnWhenWhoAskedFirstLeaves(t *testing.T) {
	s, _ := stock(t)
	synctest.Test(t, func(t *testing.T) {
		slow := slowStorage{s, make(chan struct{})}
		r := records.New(slow, records.Options{})
		first, leave := context.WithCancel(t.Context())
		var firstErr, secondErr error
		var found []records.Stored
		go func() { _, firstErr = r.Covering(first, []string{"a.example"}, now) }()
		synctest.Wait()
		go func() { found, secondErr = r.Covering(t.Context(), []string{"a.example"}, now) }()
		synctest.Wait()
		leave()
		synctest.Wait()
		if !errors.Is(firstErr, context.Canceled) || secondErr != nil || found != nil {
			t.Errorf("first %v, second %v", firstErr, secondErr)
		}
		close(slow.wait)
		synctest.Wait()
		if secondErr != nil || len(found) != 5 {
			t.Errorf("second: %d, %v", len(found), secondErr)
		}
	})
}

// panicStorage panics in List, once.
type panicStorage struct {
	*fakeStorage
	once sync.Once
}

func (s *panicStorage) List(ctx context.Context, prefix string) ([]string, error) {
	s.once.Do(func() { panic("in List") })
	return s.fakeStorage.List(ctx, prefix)
}

func TestCoveringOutlivesAPanicOfTheStorage(t *testing.T) {
	s, _ := stock(t)
	r := records.New(&panicStorage{fakeStorage: s}, records.Options{})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_, _ = r.Covering(t.Context(), []string{"a.example"}, now)
	}()
	if found, err := r.Covering(t.Context(), []string{"a.example"}, now); err != nil || len(found) == 0 {
		t.Errorf("%v, %v", found, err)
	}
}
