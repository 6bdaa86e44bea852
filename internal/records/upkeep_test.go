package records_test

import (
	"errors"
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/records"
)

// roundTrips are records of each kind that is JSON: how they are stored, loaded
// and dropped.
func roundTrips(r *records.Records, t *testing.T) map[string]struct {
	want  any
	store func() error
	load  func() (any, error)
	drop  func() error
} {
	ctx := t.Context()
	const id, issuer = "a.example+p256", "ca.example-directory"
	order := &records.Order{
		Names: []string{"a.example"}, Profile: "short", Lifetime: 6 * day, Created: began, Issuer: issuer, KeyPEM: "KEY", State: []byte("{}"),
	}
	hold := &records.Hold{
		Account: issuer, Subject: "a.example", Noted: 1000, Until: 2000, Last: 900, ByCA: true, Attempts: 3, Failed: []int64{1, 2}, Error: "no",
	}
	own := &records.Hold{Account: issuer, Noted: 1, Until: 2}
	info := &records.RenewalInfo{Serial: "7f", Start: began, End: now, Refresh: now, ExplanationURL: "https://ca.example/why", Odd: true}
	staple := &records.Staple{Serial: "7f", Raw: []byte{1, 2}, Asked: began}
	account := &records.Account{Directory: "https://ca.example/directory", Location: "https://ca.example/1", Contact: []string{"mailto:a@example.com"}, EABKeyID: "kid", KeyPEM: "KEY"}
	cleaned := records.Cleaned{At: began, Removed: 3}
	type trip = struct {
		want  any
		store func() error
		load  func() (any, error)
		drop  func() error
	}
	return map[string]trip{
		"v1/orders/a.example+p256+29952d52": {
			order,
			func() error { return r.StoreOrder(ctx, id, order) },
			func() (any, error) { return r.LoadOrder(ctx, id, issuer) },
			func() error { return r.DropOrder(ctx, id, issuer) },
		},
		"v1/holds/a.example+29952d52": {
			hold,
			func() error { return r.StoreHold(ctx, hold) },
			func() (any, error) { return r.LoadHold(ctx, issuer, "a.example") },
			func() error { return r.DropHold(ctx, issuer, "a.example") },
		},
		"v1/holds/+29952d52": {
			own,
			func() error { return r.StoreHold(ctx, own) },
			func() (any, error) { return r.LoadHold(ctx, issuer, "") },
			func() error { return r.DropHold(ctx, issuer, "") },
		},
		"v1/renewal-info/a.example+p256": {
			info,
			func() error { return r.StoreRenewalInfo(ctx, id, info) },
			func() (any, error) { return r.LoadRenewalInfo(ctx, id) },
			func() error { return r.DropRenewalInfo(ctx, id) },
		},
		"v1/staples/a.example+p256": {
			staple,
			func() error { return r.StoreStaple(ctx, id, staple) },
			func() (any, error) { return r.LoadStaple(ctx, id) },
			func() error { return r.DropStaple(ctx, id) },
		},
		"v1/accounts/ca.example-directory": {
			account,
			func() error { return r.StoreAccount(ctx, issuer, account) },
			func() (any, error) { return r.LoadAccount(ctx, issuer) },
			func() error { return r.DropAccount(ctx, issuer) },
		},
		"v1/cleaned": {
			cleaned,
			func() error { return r.StoreCleaned(ctx, cleaned) },
			func() (any, error) { return r.LoadCleaned(ctx) },
			func() error { return r.Delete(ctx, "v1/cleaned") },
		},
	}
}

func TestRecordsAreStoredLoadedAndDropped(t *testing.T) {
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	for key, trip := range roundTrips(r, t) {
		if _, err := trip.load(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: before it is stored: %v", key, err)
		}
		check(t, trip.store())
		if got := slices.Collect(maps.Keys(s.values)); len(got) != 1 || got[0] != key {
			t.Errorf("it is at %q, not at %q", got, key)
		}
		if got, err := trip.load(); err != nil || !reflect.DeepEqual(got, trip.want) {
			t.Errorf("%s: loaded %+v, %v", key, got, err)
		}
		var damaged *records.DamagedError
		good := s.get(key)
		for i := range good {
			changed := slices.Clone(good)
			changed[i] ^= 1
			s.put(key, changed)
			if _, err := trip.load(); !errors.As(err, &damaged) && !errors.Is(err, records.ErrNewer) {
				t.Errorf("%s: byte %d changed: %v", key, i, err)
			}
			s.put(key, good[:i])
			if _, err := trip.load(); !errors.As(err, &damaged) || damaged.Key != key {
				t.Errorf("%s: %d bytes: %v", key, i, err)
			}
		}
		check(t, trip.drop())
		if len(s.values) != 0 {
			t.Errorf("%s: it was not dropped", key)
		}
	}
}

func TestOrderIsOfOneIssuer(t *testing.T) {
	r := records.New(newFakeStorage(), records.Options{})
	check(t, r.StoreOrder(t.Context(), "a.example+p256", &records.Order{Issuer: "one", KeyPEM: "1"}))
	check(t, r.StoreOrder(t.Context(), "a.example+p256", &records.Order{Issuer: "two", KeyPEM: "2"}))
	for issuer, key := range map[string]string{"one": "1", "two": "2"} {
		if o, err := r.LoadOrder(t.Context(), "a.example+p256", issuer); err != nil || o.KeyPEM != key {
			t.Errorf("%s: %+v, %v", issuer, o, err)
		}
	}
	if _, err := r.LoadOrder(t.Context(), "a.example+p256", "three"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestHoldThatNoWaitExplainsCountsAsNone is F3.
func TestHoldThatNoWaitExplainsCountsAsNone(t *testing.T) {
	const now, hour = int64(1_800_000_000), int64(3600)
	tests := []struct {
		name         string
		noted, until int64
		want         bool
	}{
		{"running", now - hour, now + hour, true},
		{"ended", now - hour, now, false},
		{"a clock that is a minute ahead", now + 60, now + hour, true},
		{"a clock that is three minutes ahead", now + 180, now + hour, false},
		{"a year ahead", now + 365*24*hour, now + 366*24*hour, false},
		{"seven days", now - hour, now + 167*hour, true},
		{"longer than any wait", now - hour, now + 192*hour, false},
		{"zero", 0, 0, false},
	}
	for _, tt := range tests {
		if got := (&records.Hold{Noted: tt.noted, Until: tt.until}).Counts(now); got != tt.want {
			t.Errorf("%s: Counts = %v", tt.name, got)
		}
	}
	h := &records.Hold{Failed: []int64{now - 2*hour, now - hour, now - 1, now + 60, now + 365*24*hour}}
	if n := len(h.FailedSince(now - hour)); n != 3 {
		t.Errorf("FailedSince = %d, want 3", n)
	}
	if (*records.Hold)(nil).Counts(now) || (*records.Hold)(nil).FailedSince(0) != nil {
		t.Error("a nil Hold counts")
	}
}

func TestProbeTellsWhetherTheStorageWorks(t *testing.T) {
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	check(t, r.Probe(t.Context()))
	full := errors.New("no space left")
	for _, verb := range []string{"load", "store"} {
		s.fail = func(v, _ string) error { return map[string]error{verb: full}[v] }
		if err := r.Probe(t.Context()); !errors.Is(err, full) {
			t.Errorf("%s fails: %v", verb, err)
		}
	}
}

func TestListFindsOurKeysAlone(t *testing.T) {
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	ca := newFakeCA(t)
	b := ca.bundle(r, []string{"a.example"}, nil)
	set := ca.bundle(r, []string{"a.example", "b.example"}, nil)
	store(t, r, b)
	store(t, r, set)
	check(t, r.KeepPrevious(t.Context(), records.Stored{Bundle: b}))
	for _, key := range []string{"v1/certs/README", "v1/certs/x/y.pem", "v1/certs/a.example.pem", "v1/certs/a.example+p257.pem", "v1/certs/+p256.pem", "v1/certs/.pem"} {
		s.put(key, nil)
	}
	got, err := r.List(t.Context(), records.Certs)
	check(t, err)
	want := []records.Entry{
		{Kind: records.Certs, Key: certKey(set), ID: set.ID()},
		{Kind: records.Certs, Key: "v1/certs/a.example+p256+prev.pem", ID: "a.example+p256", Previous: true},
		{Kind: records.Certs, Key: "v1/certs/a.example+p256.pem", ID: "a.example+p256"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("List:\n%+v, want\n%+v", got, want)
	}
}

func TestOverTellsWhenARecordIsOfNoUse(t *testing.T) {
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	ctx := t.Context()
	store(t, r, newFakeCA(t).bundle(r, []string{"a.example"}, nil))
	for _, trip := range roundTrips(r, t) {
		check(t, trip.store())
	}
	c := r.NewChanges("one")
	c.Note("a.example+p256")
	check(t, c.Flush(ctx))
	want := map[string]time.Time{
		"v1/certs/a.example+p256.pem":       began.Add(90 * day),
		"v1/orders/a.example+p256+29952d52": began,
		"v1/holds/a.example+29952d52":       time.Unix(2000, 0),
		"v1/holds/+29952d52":                time.Unix(2, 0),
		"v1/renewal-info/a.example+p256":    now,
		"v1/staples/a.example+p256":         began,
		"v1/accounts/ca.example-directory":  {},
	}
	for _, kind := range []records.Kind{records.Certs, records.Orders, records.Holds, records.RenewalInfos, records.Staples, records.Accounts, records.ChangeLists} {
		entries, err := r.List(ctx, kind)
		check(t, err)
		if len(entries) == 0 {
			t.Errorf("%s: none is listed", kind)
		}
		for _, e := range entries {
			at, err := r.Over(ctx, e)
			if kind == records.ChangeLists {
				if err != nil || time.Since(at) > time.Hour || e.ID != "one" {
					t.Errorf("%s: %v, %v", e.Key, at, err)
				}
				continue
			}
			if err != nil || !at.Equal(want[e.Key]) {
				t.Errorf("%s: %v, %v; want %v", e.Key, at, err, want[e.Key])
			}
			s.put(e.Key, []byte("broken"))
			if _, err := r.Over(ctx, e); err == nil && kind != records.Accounts {
				t.Errorf("%s: damage is not told", e.Key)
			}
		}
	}
}

var update = flag.Bool("update", false, "write testdata/layout.txtar anew")

// TestLayoutStays reads what an earlier build has written, and writes it again
// without changing a byte.
func TestLayoutStays(t *testing.T) {
	path := filepath.Join("testdata", "layout.txtar")
	if *update {
		writeLayout(t, path)
	}
	a, err := txtar.ParseFile(path)
	check(t, err)
	s := newFakeStorage()
	for _, f := range a.Files {
		s.put(f.Name, f.Data)
	}
	r := records.New(s, records.Options{})
	again := newFakeStorage()
	w := records.New(again, records.Options{})
	entries, err := r.List(t.Context(), records.Certs)
	check(t, err)
	for _, e := range entries {
		got, err := r.LoadBundle(t.Context(), e.ID, now)
		if err != nil || got.Mended != nil {
			t.Errorf("%s: %v, mended: %v", e.Key, err, got.Mended)
			continue
		}
		if _, err := got.Certificate(); err != nil {
			t.Error(err)
		}
		check(t, w.StoreBundle(t.Context(), got))
	}
	for key, trip := range roundTrips(r, t) {
		if got, err := trip.load(); err != nil || !reflect.DeepEqual(got, trip.want) {
			t.Errorf("%s: %+v, %v", key, got, err)
		}
	}
	for _, trip := range roundTrips(w, t) {
		check(t, trip.store())
	}
	for _, f := range a.Files {
		if got := string(again.get(f.Name)); got != string(f.Data) {
			t.Errorf("%s is written as\n%s\nand not as\n%s", f.Name, got, f.Data)
		}
	}
	if len(again.values) != len(a.Files) {
		t.Errorf("%d keys, want %d", len(again.values), len(a.Files))
	}
}

func writeLayout(t *testing.T, path string) {
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	ca := newFakeCA(t)
	for names, kt := range map[string]certpem.KeyType{"a.example": certpem.P256, "*.a.example": certpem.P384, "2001:db8::1": certpem.Ed25519, "rsa.example": certpem.RSA2048} {
		key := newKey(t, kt)
		store(t, r, ca.make(r, records.NewBundle{Names: []string{names}, Key: key, Profile: "short", Chain: append(certpem.EncodeChain(
			certList(ca.leaf(key, []string{names}, nil))), certpem.EncodeChain(certList(ca.inter))...)}))
	}
	store(t, r, ca.bundle(r, []string{"b.example", "a.example"}, nil))
	for _, trip := range roundTrips(r, t) {
		check(t, trip.store())
	}
	var a txtar.Archive
	for _, key := range slices.Sorted(maps.Keys(s.values)) {
		a.Files = append(a.Files, txtar.File{Name: key, Data: s.values[key]})
	}
	check(t, os.MkdirAll(filepath.Dir(path), 0o755))
	check(t, os.WriteFile(path, txtar.Format(&a), 0o644))
}
