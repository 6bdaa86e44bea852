//go:build unix

package certwright_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// manageChild manages its names, says which serial numbers it serves, and ends
// when its input does.
func manageChild() error {
	o, err := openManager(os.Getenv)
	if err != nil {
		return err
	}
	say("up")
	in := bufio.NewScanner(os.Stdin)
	in.Scan() // so that all begin at once
	ctx := context.Background()
	if err := o.ManageSync(ctx, o.names); err != nil {
		return err
	}
	var serials []string
	for _, name := range o.names {
		leaf := leafOf(o.Manager, name)
		if leaf == nil {
			return fmt.Errorf("%s is not served", name)
		}
		serials = append(serials, fmt.Sprintf("%x", leaf.SerialNumber))
	}
	say("serves", strings.Join(serials, ","))
	in.Scan()
	return o.close(ctx)
}

// holdChild takes a lock and, when it is told, stores under it.
func holdChild() error {
	o, err := openManager(os.Getenv)
	if err != nil {
		return err
	}
	ctx := context.Background()
	defer o.close(ctx) //nolint:errcheck // the process ends
	lease, err := o.dir.Lock(ctx, "work")
	if err != nil {
		return err
	}
	say("locked")
	in := bufio.NewScanner(os.Stdin)
	in.Scan()
	// Both ways: as work under the lease is done, and by who ignores its end.
	for _, ctx := range []context.Context{lease.Context(), context.WithoutCancel(lease.Context())} {
		err := o.dir.Store(ctx, "v1/x/value", []byte("of the one that was paused"))
		say("stored", errors.Is(err, storage.ErrLeaseLost), err)
	}
	say("unlocked", errors.Is(lease.Unlock(ctx), storage.ErrLeaseLost))
	in.Scan()
	return nil
}

// answerChild manages nothing and answers validation requests for others.
func answerChild() error {
	o, err := openManager(os.Getenv)
	if err != nil {
		return err
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	secure, err := tls.Listen("tcp", "127.0.0.1:0", o.TLSConfig())
	if err != nil {
		return err
	}
	go http.Serve(plain, o.HTTPHandler(nil)) //nolint:errcheck,gosec // until the process ends
	go http.Serve(secure, http.NotFoundHandler())
	say("listening", plain.Addr(), secure.Addr())
	_, err = io.ReadAll(os.Stdin)
	return err
}

// Any number of processes that want the same 50 names on one folder make 50
// orders, with one account, and all serve the same certificates (P19).
func TestProcessesShareOrdersAndAccount(t *testing.T) {
	for _, processes := range []int{2, 8} {
		t.Run(fmt.Sprint(processes), func(t *testing.T) {
			if processes > 2 && testing.Short() {
				t.Skip("eight processes")
			}
			names := numbered(50, "test")
			ca, vars := serveCA(t, t.TempDir(), fakeca.Options{}, names...)
			var all []*child
			for range processes {
				c := startChild(t, "manage", vars...)
				c.expect("up")
				all = append(all, c)
			}
			for _, c := range all {
				c.tell("go")
			}
			first := ""
			for _, c := range all {
				serials := c.expect("serves")
				if first == "" {
					first = serials
				}
				if serials != first {
					t.Errorf("one process serves\n%s, another\n%s", first, serials)
				}
			}
			for _, c := range all {
				c.tell("end")
				if err := c.wait(); err != nil {
					t.Error(err)
				}
			}
			if got := ca.Count("newOrder"); got != len(names) || len(ca.Certificates()) != len(names) {
				t.Errorf("%d requests for an order, %d certificates, want %d", got, len(ca.Certificates()), len(names))
			}
			if got := ca.Count("newAccount"); got != 1 || ca.Accounts() != 1 {
				t.Errorf("%d requests for an account, %d accounts", got, ca.Accounts())
			}
		})
	}
}

// A holder that is paused beyond its lease stores nothing over its successor and
// frees nobody's lock (S4, F44, F51).
func TestPausedHolderStoresNothing(t *testing.T) {
	const ttl = 500 * time.Millisecond
	path := t.TempDir()
	_, vars := serveCA(t, path, fakeca.Options{})
	c := startChild(t, "hold", append(vars, childLease+"="+ttl.String())...)
	c.expect("locked")
	c.signal(syscall.SIGSTOP)
	dir, err := storage.DirOptions{LeaseTTL: ttl}.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	began := time.Now()
	lease, err := dir.Lock(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < ttl*3/4 {
		t.Errorf("taken over after %v, before the lease had ended", took)
	}
	if err := dir.Store(lease.Context(), "v1/x/value", []byte("of the successor")); err != nil {
		t.Fatal(err)
	}
	c.tell("store")
	c.signal(syscall.SIGCONT)
	for range 2 {
		if got := c.expect("stored"); !strings.HasPrefix(got, "true") {
			t.Errorf("the store of the one that was paused: %s", got)
		}
	}
	if got := c.expect("unlocked"); got != "true" {
		t.Errorf("the unlock of the one that was paused did not report the loss")
	}
	// A third contender does not get in.
	wait, cancel := context.WithTimeout(t.Context(), 2*ttl)
	defer cancel()
	third, err := storage.DirOptions{LeaseTTL: ttl}.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	if _, err := third.Lock(wait, "work"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a third got the lock: %v", err)
	}
	if err := errors.Join(lease.Context().Err(), lease.Unlock(t.Context())); err != nil {
		t.Errorf("the successor: %v", err)
	}
	if got := valueAt(t, dir, "v1/x/value"); string(got) != "of the successor" {
		t.Errorf("stored is %q", got)
	}
}

// A process that is paused in the middle of an issue, beyond its lease, makes
// way for another, which goes on with its order; when it wakes up it takes what
// the other has stored (S8, F50).
func TestPausedIssuerTakesWhatAnotherStored(t *testing.T) {
	if testing.Short() {
		t.Skip("the one that was paused looks again after ten seconds")
	}
	t.Parallel()
	const ttl = 500 * time.Millisecond
	path := t.TempDir()
	reached := make(chan struct{})
	var once sync.Once
	ca, vars := serveCA(t, path, fakeca.Options{}, "a.test")
	// The CA does what it is asked to and never says so.
	defer ca.On(fakeca.Rule{
		Endpoint: "finalize", N: 1, Run: true, Hang: true,
		When: func(*fakeca.Request) bool { once.Do(func() { close(reached) }); return true },
	})()
	vars = append(vars, childLease+"="+ttl.String())
	paused := startChild(t, "manage", vars...)
	paused.expect("up")
	paused.tell("go")
	<-reached
	paused.signal(syscall.SIGSTOP)
	other := startChild(t, "manage", vars...)
	other.expect("up")
	other.tell("go")
	serials := other.expect("serves")
	paused.signal(syscall.SIGCONT)
	if got := paused.expect("serves"); got != serials {
		t.Errorf("the one that was paused serves %s, the other %s", got, serials)
	}
	for _, c := range []*child{paused, other} {
		c.tell("end")
		if err := c.wait(); err != nil {
			t.Error(err)
		}
	}
	if b := storedFor(t, openDir(t, path), "a.test"); b.Serial() != serials {
		t.Errorf("stored is %s, served is %s", b.Serial(), serials)
	}
	if got := ca.Count("newOrder"); got != 1 || len(ca.Certificates()) != 1 {
		t.Errorf("%d orders, %d certificates, want one", got, len(ca.Certificates()))
	}
}

// oidACMEIdentifier is id-pe-acmeIdentifier (RFC 8737 §6.1).
var oidACMEIdentifier = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}

// validateAt asks the servers at these addresses, as a CA does.
func validateAt(ctx context.Context, ch fakeca.ChallengeInfo, plain, secure string) error {
	if ch.Type == challenge.HTTP01 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+plain+challenge.PathPrefix+ch.Token, nil)
		if err != nil {
			return err
		}
		req.Host = ch.Identifier.Value
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || string(body) != ch.KeyAuthorization {
			return fmt.Errorf("got %d %q: %w", res.StatusCode, body, err)
		}
		return nil
	}
	d := tls.Dialer{Config: &tls.Config{ServerName: ch.Identifier.Value, NextProtos: []string{alpnProto}, InsecureSkipVerify: true}} //nolint:gosec // the validator's way (RFC 8737 §3)
	conn, err := d.DialContext(ctx, "tcp", secure)
	if err != nil {
		return err
	}
	defer conn.Close()
	leaf := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
	sum := sha256.Sum256([]byte(ch.KeyAuthorization))
	want, err := asn1.Marshal(sum[:])
	if err != nil {
		return err
	}
	for _, e := range leaf.Extensions {
		if e.Id.Equal(oidACMEIdentifier) && e.Critical && string(e.Value) == string(want) && slices.Equal(leaf.DNSNames, []string{ch.Identifier.Value}) {
			return nil
		}
	}
	return fmt.Errorf("the certificate for %v is not the challenge's", leaf.DNSNames)
}

// A validation request that reaches a process that ordered nothing is answered
// there, at the very moment at which the CA is told to ask (C2).
func TestOtherProcessAnswersChallenges(t *testing.T) {
	for _, typ := range []string{challenge.HTTP01, challenge.TLSALPN01} {
		t.Run(typ, func(t *testing.T) {
			var plain, secure string
			var asked atomic.Int32
			path := t.TempDir()
			ca, vars := serveCA(t, path, fakeca.Options{
				Challenges: []string{typ},
				Validate: func(ctx context.Context, ch fakeca.ChallengeInfo) error {
					asked.Add(1)
					return validateAt(ctx, ch, plain, secure)
				},
			}, "a.test")
			c := startChild(t, "answer", vars...)
			if _, err := fmt.Sscan(c.expect("listening"), &plain, &secure); err != nil {
				t.Fatal(err)
			}
			dir, err := storage.OpenDir(path)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			_, conf := newFake(t, fakeca.Options{})
			conf.Storage, conf.Issuers = dir, []Issuer{&ACME{Directory: ca.Directory()}}
			m := start(t, conf)
			manage(t, m, numbered(5, "test")...)
			if got := asked.Load(); got != 5 {
				t.Errorf("%d validations, want 5", got)
			}
			closeManager(t, m)
			keys, err := dir.List(t.Context(), keyChallenges)
			if err != nil || len(keys) > 0 {
				t.Errorf("challenges are left: %q, %v", keys, err)
			}
		})
	}
}
