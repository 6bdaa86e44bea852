//go:build unix

package certwright_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/durable"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/storage"
)

var (
	crashKills = flag.Int("crash.kills", 0, "how often TestLosesNothingWhenKilledAtAnyMoment kills a process; 0 means 2000, 300 with the race detector and 100 with -short")
	crashSeed  = flag.Uint64("crash.seed", 0, "where it begins with its random numbers; 0 means anywhere")
)

// crashed is what a folder must be after any number of crashes, and what is
// known of it from one to the next.
type crashed struct {
	t      *testing.T
	dir    string
	ca     *fakeca.CA
	names  []string
	kills  int
	lost   int               // orders made in vain
	had    map[string]string // serial number of the certificate that a name had last
	orders map[string]string // orders that could be gone on with, by ID
}

func newCrashed(t *testing.T, opt fakeca.Options, names ...string) (*crashed, []string) {
	c := &crashed{t: t, dir: t.TempDir(), names: names, had: map[string]string{}, orders: map[string]string{}}
	ca, vars := serveCA(t, c.dir, opt, names...)
	c.ca = ca
	return c, vars
}

// valueAt returns the value at a key.
func valueAt(t *testing.T, s Storage, key string) []byte {
	t.Helper()
	value, err := s.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// kindsOfRecords are those that a Manager has many records of.
var kindsOfRecords = []records.Kind{
	records.Certs, records.Orders, records.Holds, records.RenewalInfos, records.Staples, records.Accounts, records.ChangeLists,
}

// check opens the folder anew and reads everything in it.
func (c *crashed) check() {
	c.t.Helper()
	dir, err := storage.OpenDir(c.dir)
	if err != nil {
		c.t.Fatalf("after %d crashes the storage does not open: %v", c.kills, err)
	}
	defer dir.Close()
	rec := recordsOn(dir)
	left := map[string]bool{} // keys that are nobody's
	for _, key := range keysOf(c.t, dir) {
		left[key] = true
	}
	for _, kind := range kindsOfRecords {
		entries, err := rec.List(c.t.Context(), kind)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, e := range entries {
			delete(left, e.Key)
			if _, err := rec.Over(c.t.Context(), e); err != nil {
				c.t.Errorf("after %d crashes: %v", c.kills, err)
			}
			if kind == records.Orders {
				c.noteOrder(e, valueAt(c.t, dir, e.Key))
			}
		}
	}
	for key := range left {
		if !strings.HasPrefix(key, keyChallenges+"/") || !json.Valid(valueAt(c.t, dir, key)) {
			c.t.Errorf("after %d crashes: the key %s is nobody's", c.kills, key)
		}
	}
	c.checkPairs(rec)
	if n := c.ca.Accounts(); n > 1 {
		c.t.Errorf("after %d crashes: %d accounts", c.kills, n)
	}
}

// checkPairs finds names that had a certificate and have none, or one without its
// key.
func (c *crashed) checkPairs(rec *records.Records) {
	for _, name := range c.names {
		b, err := rec.LoadBundle(c.t.Context(), records.ID([]string{name}, P256), time.Now())
		switch {
		case errors.Is(err, fs.ErrNotExist) && c.had[name] == "":
		case err != nil:
			c.t.Fatalf("after %d crashes: %s has lost its certificate: %v", c.kills, name, err)
		case !isPair(b.Bundle) || b.Mended != nil:
			c.t.Fatalf("after %d crashes: %s has a certificate that is not whole: %v", c.kills, name, b.Mended)
		default:
			c.had[name] = b.Serial()
		}
	}
}

// noteOrder remembers an order that the record says can be gone on with.
func (c *crashed) noteOrder(e records.Entry, value []byte) {
	_, body, _ := bytes.Cut(value, []byte("\n"))
	var r records.Order
	err := json.Unmarshal(body, &r)
	var s struct{ Order string }
	if err == nil && r.State != nil {
		err = json.Unmarshal(r.State, &s)
	}
	if err != nil {
		c.t.Errorf("after %d crashes: %s: %v", c.kills, e.Key, err)
	}
	if s.Order != "" {
		c.orders[path.Base(s.Order)] = e.ID
	}
}

// settle is the end: after a run that nobody killed, every order that was in
// storage has become the certificate of its name, no certificate was issued and
// not stored, each crash cost at most one order, and nothing is left over.
func (c *crashed) settle() {
	c.t.Helper()
	c.check()
	claimed := map[string]bool{} // certificates that lost orders were to replace
	for _, o := range c.ca.Orders() {
		switch {
		case o.Status == "valid" && o.Finalized == 1:
		case c.orders[o.ID] != "":
			c.t.Errorf("order %s for %s was in storage and is %q, finalized %d times", o.ID, c.orders[o.ID], o.Status, o.Finalized)
		default:
			c.lost++
			claimed[o.Replaces] = true
			if o.Finalized != 0 {
				c.t.Errorf("order %s was never in storage and is %q, finalized %d times", o.ID, o.Status, o.Finalized)
			}
		}
	}
	if c.lost > c.kills {
		c.t.Errorf("%d orders were made in vain in %d crashes", c.lost, c.kills)
	}
	c.checkStored(claimed)
	if n := c.ca.Accounts(); n != 1 {
		c.t.Errorf("%d accounts", n)
	}
	c.checkResidue()
}

// checkStored finds certificates that were issued and never stored: the next
// order for their name replaces an older one.
func (c *crashed) checkStored(claimed map[string]bool) {
	ids := map[string]string{}
	for _, leaf := range c.ca.Certificates() {
		id, err := certpem.CertID(leaf)
		if err != nil {
			c.t.Fatal(err)
		}
		ids[leaf.SerialNumber.String()] = id
	}
	last := map[string]string{}
	for _, o := range c.ca.Orders() {
		if o.Status != "valid" {
			continue
		}
		name := o.Identifiers[0].Value
		before := last[name]
		if o.Replaces != before && (o.Replaces != "" || !claimed[before]) {
			c.t.Errorf("order %s for %s replaces %q; the certificate before is %q", o.ID, name, o.Replaces, before)
		}
		last[name] = ids[o.Serial.String()]
	}
}

// checkResidue counts what crashes have left in the folder.
func (c *crashed) checkResidue() {
	old := time.Now().Add(-2 * time.Hour)
	temps := 0
	err := c.walk(func(p string) {
		if durable.IsTemp(filepath.Base(p)) {
			temps++
		}
		if err := os.Chtimes(p, old, old); err != nil {
			c.t.Error(err)
		}
	})
	if err != nil {
		c.t.Fatal(err)
	}
	if temps > c.kills {
		c.t.Errorf("%d temporary files after %d crashes", temps, c.kills)
	}
	dir, err := storage.OpenDir(c.dir)
	if err != nil {
		c.t.Fatal(err)
	}
	defer dir.Close()
	if err := dir.Tidy(c.t.Context()); err != nil {
		c.t.Error(err)
	}
	left := map[string]int{}
	err = c.walk(func(p string) {
		rel, _ := filepath.Rel(c.dir, filepath.Dir(p))
		if !strings.HasPrefix(filepath.Base(p), ".new-") { // of a taker that was killed; whoever takes the lock ten seconds later removes it
			left[filepath.ToSlash(rel)]++
		}
		if durable.IsTemp(filepath.Base(p)) {
			c.t.Errorf("%s is still there", p)
		}
	})
	if err != nil {
		c.t.Fatal(err)
	}
	challenges, changes := left[keyChallenges], left[keyChanges]
	delete(left, keyChallenges)
	delete(left, keyChanges)
	for folder, n := range left { // a lock has one file when nobody is at it
		if strings.HasPrefix(folder, "locks/") {
			delete(left, folder)
			if n != 1 {
				c.t.Errorf("%d files are left of the lock %s", n, folder)
			}
		}
	}
	want := map[string]int{keyCerts: len(c.names), keyAccounts: 1}
	if !maps.Equal(left, want) || challenges > c.kills || changes > c.kills+1 {
		c.t.Errorf("left are %v, %d challenges and %d lists of changes after %d crashes", left, challenges, changes, c.kills)
	}
}

// leftAge is more than anybody keeps what a process has left that died.
const leftAge = 11 * time.Minute

// age makes what crashes have left so old that its owner must be dead, and returns
// it: temporary files and challenges. Though no process lives for more than a moment,
// those that come after remove it (F53).
func (c *crashed) age() (left []string) {
	c.t.Helper()
	old := time.Now().Add(-leftAge)
	err := c.walk(func(p string) {
		switch {
		case durable.IsTemp(filepath.Base(p)):
		case strings.HasPrefix(filepath.Base(p), ".new-") && strings.Contains(p, "_issue_"): // which is taken again
		case strings.HasPrefix(filepath.ToSlash(p), filepath.ToSlash(c.dir)+"/"+keyChallenges+"/"):
			var ch map[string]any
			value, err := os.ReadFile(p)
			if err == nil {
				err = json.Unmarshal(value, &ch)
			}
			if err == nil {
				ch["presented"] = old
				value, err = json.Marshal(ch)
			}
			if err = errors.Join(err, os.WriteFile(p, value, 0o600)); err != nil {
				c.t.Error(err)
			}
		default:
			return
		}
		left = append(left, p)
		if err := os.Chtimes(p, old, old); err != nil {
			c.t.Error(err)
		}
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return left
}

// walk visits all files in the folder.
func (c *crashed) walk(visit func(path string)) error {
	return filepath.WalkDir(c.dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			visit(p)
		}
		return err
	})
}

// A process that is killed at any moment loses nothing, again and again (F53).
func TestLosesNothingWhenKilledAtAnyMoment(t *testing.T) {
	kills := *crashKills
	switch {
	case kills > 0:
	case testing.Short():
		kills = 100
	case raceEnabled:
		kills = 300
	default:
		kills = 2000
	}
	seed := *crashSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-crash.seed %d", seed)
	const folders = 4
	for i := range folders {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			crashFolder(t, rand.New(rand.NewPCG(seed, uint64(i))), kills/folders)
		})
	}
}

func crashFolder(t *testing.T, rnd *rand.Rand, kills int) {
	c, vars := newCrashed(t, fakeca.Options{}, "a.test", "b.test", "c.test")
	// Some orders are refused, so that there is a back-off to be stored.
	defer c.ca.On(fakeca.Rule{
		Endpoint: "newOrder", Status: http.StatusServiceUnavailable,
		When: func(r *fakeca.Request) bool { return r.N%9 == 0 },
	})()
	// As long as two renewals take here and now is when a crash may come.
	first := startChild(t, "loop", vars...)
	first.expect("renewed")
	began := time.Now()
	first.expect("renewed")
	first.expect("renewed")
	window := min(max(time.Since(began), 20*time.Millisecond), 250*time.Millisecond)
	first.kill()
	c.kills++
	var aged []string
	for c.kills < kills && !t.Failed() {
		if c.kills == kills/2 {
			aged = c.age()
		}
		p := startChild(t, "loop", vars...)
		p.expect("up")
		time.Sleep(time.Duration(rnd.Int64N(int64(window))))
		p.kill()
		c.kills++
		c.check()
	}
	// The last run has to find the CA willing.
	for try := 0; ; try++ {
		_, err := issueAndRenew(variables(vars))
		if err == nil {
			break
		}
		if try == 5 {
			t.Fatal(err)
		}
	}
	for _, path := range aged {
		// A challenge may have come again.
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > leftAge/2 {
			t.Errorf("what was left over when half of the crashes were over is still there: %s", path)
		}
	}
	c.settle()
	t.Logf("%d crashes, %d orders, %d of them in vain", c.kills, len(c.ca.Orders()), c.lost)
}

// A process that ends before each system call of the store path in turn, in the
// first issue or in the renewal, loses nothing and repeats at most one order.
func TestLosesNothingWhenKilledAtAnySystemCall(t *testing.T) {
	plain, vars := newCrashed(t, fakeca.Options{}, "a.test")
	p := startChild(t, "once", append(vars, childKill+"=0")...)
	var total int
	if _, err := fmt.Sscan(p.expect("calls"), &total); err != nil {
		t.Fatal(err)
	}
	plain.settle()
	if total < 80 || len(plain.ca.Orders()) != 2 {
		t.Fatalf("without a crash: %d calls, %d orders", total, len(plain.ca.Orders()))
	}
	step := 1
	if testing.Short() {
		step = 7
	}
	const workers = 3
	for w := range workers {
		t.Run(fmt.Sprint(w), func(t *testing.T) {
			t.Parallel()
			for n := 1 + w*step; n <= total; n += workers * step {
				crashAt(t, n)
			}
		})
	}
	t.Logf("%d system calls", total)
}

func crashAt(t *testing.T, n int) {
	t.Helper()
	c, vars := newCrashed(t, fakeca.Options{}, "a.test")
	err := startChild(t, "once", append(vars, fmt.Sprintf("%s=%d", childKill, n))...).wait()
	if !killed(err) {
		t.Errorf("call %d: the child was not killed: %v", n, err)
		return
	}
	c.kills = 1
	c.check()
	renewed := 0
	if certs := c.ca.Certificates(); len(certs) == 2 && c.had["a.test"] == fmt.Sprintf("%x", certs[1].SerialNumber) {
		renewed = 1 // so that the next run renews once more
	}
	if _, err := issueAndRenew(variables(vars)); err != nil {
		t.Errorf("call %d: the run after the crash: %v", n, err)
		return
	}
	c.settle()
	if got, want := len(c.ca.Orders()), 2+renewed+c.lost; got != want {
		t.Errorf("call %d: %d orders, want %d, %d of them in vain", n, got, want, c.lost)
	}
}
