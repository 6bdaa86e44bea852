//go:build unix

package certwright

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/internal/durable"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/internal/record"
	"github.com/certwright/certwright/storage"
)

var (
	crashKills = flag.Int("crash.kills", 0, "how often TestCrash kills a process; 0 means 2000, and 100 with -short")
	crashSeed  = flag.Uint64("crash.seed", 0, "where TestCrash begins with its random numbers; 0 means anywhere")
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

// check opens the folder anew and reads everything in it.
func (c *crashed) check() {
	c.t.Helper()
	dir, err := storage.OpenDir(c.dir)
	if err != nil {
		c.t.Fatalf("after %d crashes the storage does not open: %v", c.kills, err)
	}
	defer dir.Close()
	found := map[string]bool{}
	for _, key := range keysOf(c.t, dir) {
		parts := strings.Split(key, "/")
		id := parts[len(parts)-1]
		value := mustLoad(c.t, dir, key)
		switch parts[1] {
		case "certs":
			b, err := new(decoder).bundle(id, value)
			if err != nil {
				c.t.Fatalf("after %d crashes: %s: %v", c.kills, key, err)
			}
			found[id], c.had[id] = true, b.serial()
		case "orders":
			c.noteOrder(key, id, value)
		case "state":
			err = record.Decode(kindState, value, new(stateRecord))
		case "accounts":
			err = record.Decode(kindAccount, value, bodyOf(kindAccount))
		case "challenges":
			err = json.Unmarshal(value, new(challenge.Challenge))
		default:
			c.t.Errorf("after %d crashes: the key %s is nobody's", c.kills, key)
		}
		if err != nil {
			c.t.Errorf("after %d crashes: %s: %v", c.kills, key, err)
		}
	}
	for id := range c.had {
		if !found[id] {
			c.t.Errorf("after %d crashes: %s has lost its certificate", c.kills, id)
		}
	}
	if n := c.ca.Accounts(); n > 1 {
		c.t.Errorf("after %d crashes: %d accounts", c.kills, n)
	}
}

// noteOrder remembers an order that the record says can be gone on with.
func (c *crashed) noteOrder(key, name string, value []byte) {
	r, _, err := decodeOrder(value)
	if err != nil {
		c.t.Errorf("after %d crashes: %s: %v", c.kills, key, err)
		return
	}
	for _, state := range r.Issuers {
		var s struct{ Order string }
		if err := json.Unmarshal(state, &s); err != nil {
			c.t.Errorf("after %d crashes: %s: %v", c.kills, key, err)
		}
		if s.Order != "" {
			c.orders[path.Base(s.Order)] = name
		}
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
	err := filepath.WalkDir(c.dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && durable.IsTemp(d.Name()) {
			temps++
		}
		return errors.Join(err, os.Chtimes(p, old, old))
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
	for p := range treeOf(c.t, c.dir) {
		left[strings.Join(strings.Split(p, "/")[:3], "/")]++
		if durable.IsTemp(filepath.Base(p)) {
			c.t.Errorf("%s is still there", p)
		}
	}
	locks, err := os.ReadDir(filepath.Join(c.dir, "locks"))
	if err != nil || len(locks) > 0 {
		c.t.Errorf("locks are left: %v, %v", locks, err)
	}
	challenges := left["/v1/challenges"]
	delete(left, "/v1/challenges")
	want := map[string]int{"/v1/certs": len(c.names), "/v1/accounts": 1}
	if fmt.Sprint(left) != fmt.Sprint(want) || challenges > c.kills {
		c.t.Errorf("left are %v and %d challenges after %d crashes", left, challenges, c.kills)
	}
}

// A process that is killed at any moment loses nothing, again and again.
func TestCrash(t *testing.T) {
	kills := *crashKills
	switch {
	case kills > 0:
	case testing.Short():
		kills = 100
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
	for c.kills < kills && !t.Failed() {
		p := startChild(t, "loop", vars...)
		p.expect("up")
		time.Sleep(time.Duration(rnd.Int64N(int64(window))))
		p.kill()
		c.kills++
		c.check()
	}
	// The last run has to find the CA willing.
	for try := 0; ; try++ {
		err := issueAndRenew(variables(vars))
		if err == nil {
			break
		}
		if try == 5 {
			t.Fatal(err)
		}
	}
	c.settle()
	t.Logf("%d crashes, %d orders, %d of them in vain", c.kills, len(c.ca.Orders()), c.lost)
}

// A process that ends before each system call of the store path in turn, in the
// first issue or in the renewal, loses nothing and repeats at most one order.
func TestCrashAtEachCall(t *testing.T) {
	plain, vars := newCrashed(t, fakeca.Options{}, "a.test")
	p := startChild(t, "once", append(vars, childKill+"=0")...)
	var total int
	if _, err := fmt.Sscan(p.expect("calls"), &total); err != nil {
		t.Fatal(err)
	}
	plain.settle()
	if total < 100 || len(plain.ca.Orders()) != 2 {
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
	if err := issueAndRenew(variables(vars)); err != nil {
		t.Errorf("call %d: the run after the crash: %v", n, err)
		return
	}
	c.settle()
	if got, want := len(c.ca.Orders()), 2+renewed+c.lost; got != want {
		t.Errorf("call %d: %d orders, want %d, %d of them in vain", n, got, want, c.lost)
	}
}
