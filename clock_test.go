package certwright_test

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// valuesOf returns all that is stored.
func valuesOf(t *testing.T, s Storage) map[string][]byte {
	t.Helper()
	values := map[string][]byte{}
	for _, key := range keysOf(t, s) {
		values[key] = mustLoad(t, s, key)
	}
	return values
}

// TestClockThatWasAhead lets a host's clock be a year ahead for a while, in which
// all goes wrong, and sets it right: what was noted meanwhile holds nothing up.
// The two times are those of two bubbles, which begin at the same moment. (F3)
func TestClockThatWasAhead(t *testing.T) {
	const good, missing = "good.example.com", "missing.example.com"
	var values map[string][]byte
	opt := fakeca.Options{BaseURL: "https://ca.clock.test", Backdate: time.Hour, ARIRetryAfter: 6 * time.Hour}
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, opt)
		m := startAlone(t, conf)
		manage(t, m, good)
		time.Sleep(time.Minute)
		closeManager(t, m)
		value := mustLoad(t, conf.Storage, certKey(good))
		time.Sleep(365 * day)
		ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.RateLimited(167*time.Hour, "slow down")})
		m = startAlone(t, conf)
		if m.ManageSync(t.Context(), []string{good, missing}) == nil {
			t.Fatal("a certificate came from a CA that refuses all orders")
		}
		time.Sleep(25 * time.Hour) // it is cleaned, too
		closeManager(t, m)
		values = valuesOf(t, conf.Storage)
		values[certKey(good)] = value
	})
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Hour)
		ca, conf := newFake(t, opt)
		storeAll(t, conf.Storage, values)
		m := startAlone(t, conf)
		if err := m.ManageAsync([]string{good, missing}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		first := mustLeaf(t, m, good)
		if leafOf(m, missing) == nil {
			t.Errorf("not tried although the clock was wrong when it failed: %+v", statusFor(t, m, missing))
		}
		for range 70 {
			time.Sleep(day)
			if leaf := mustLeaf(t, m, good); !time.Now().Before(leaf.NotAfter) {
				t.Fatal("an expired certificate is served")
			}
		}
		if mustLeaf(t, m, good).Equal(first) {
			t.Errorf("not renewed: %+v", statusFor(t, m, good))
		}
		if ca.Count("renewalInfo") == 0 {
			t.Error("the CA was never asked when to renew")
		}
	})
}

// TestWrongClockOfOneHostStopsNoOther has a second instance, whose clock is a
// year ahead, note on the shared storage that an issuer is held up. (F3)
func TestWrongClockOfOneHostStopsNoOther(t *testing.T) {
	var ahead map[string][]byte
	opt := fakeca.Options{BaseURL: "https://ca.clock.test"}
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(365 * day)
		ca, conf := newFake(t, opt)
		ca.Down(nil)
		m := startAlone(t, conf)
		if m.ManageSync(t.Context(), []string{"a.example.com"}) == nil {
			t.Fatal("a certificate came from a CA that is down")
		}
		closeManager(t, m)
		ahead = valuesOf(t, conf.Storage)
		maps.DeleteFunc(ahead, func(k string, _ []byte) bool { return len(k) < len(keyHolds) || k[:len(keyHolds)] != keyHolds })
		if len(ahead) == 0 {
			t.Fatal("nothing was noted")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, opt)
		storeAll(t, conf.Storage, ahead)
		manage(t, startAlone(t, conf), "a.example.com", "b.example.com")
	})
}

// expiring is a name whose certificate has expired because its issuer has failed
// since it was due.
func expiring(t *testing.T) (*fakeSigner, *Manager) {
	t.Helper()
	f := newFakeSigner(t)
	m := offline(t, f)
	manage(t, m, "a.example.com")
	f.set(func() { f.err = errors.New("down") })
	time.Sleep(90*day + time.Minute + 1) // at no time at which anything is due
	if leaf := mustLeaf(t, m, "a.example.com"); time.Now().Before(leaf.NotAfter) {
		t.Fatal("the certificate has not expired")
	}
	return f, m
}

// TestHandshakeAtADeadCAWaitsForNothing asks for a name whose certificate has
// expired while nothing is under way. (F7)
func TestHandshakeAtADeadCAWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, m := expiring(t)
		synctest.Wait()
		began := time.Now()
		if leaf := mustLeaf(t, m, "a.example.com"); time.Now().Before(leaf.NotAfter) || !time.Now().Equal(began) {
			t.Errorf("waited %v for a certificate until %v", time.Since(began), leaf.NotAfter)
		}
	})
}

// TestHandshakeWaitsForAnIssueUnderWay asks for a name whose certificate has
// expired while another is being issued: it waits, but for five seconds at most.
// (F7)
func TestHandshakeWaitsForAnIssueUnderWay(t *testing.T) {
	for _, takes := range []time.Duration{3 * time.Second, time.Minute} {
		t.Run(takes.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, m := expiring(t)
				f.set(func() {
					f.err = nil
					f.hook = func(ctx context.Context) error { return waitFor(ctx, takes) }
				})
				done := make(chan error, 1)
				go func() { done <- m.Renew(context.Background(), "a.example.com") }()
				time.Sleep(time.Millisecond)
				began := time.Now()
				leaf := mustLeaf(t, m, "a.example.com")
				took := time.Since(began)
				if isNew := time.Now().Before(leaf.NotAfter); isNew != (takes < 5*time.Second) {
					t.Errorf("after %v the new certificate is served: %v", took, isNew)
				}
				if took > min(takes, 5*time.Second) {
					t.Errorf("the handshake waited %v for an issue of %v", took, takes)
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
				if leaf := mustLeaf(t, m, "a.example.com"); !time.Now().Before(leaf.NotAfter) {
					t.Error("the new certificate is not served")
				}
			})
		})
	}
}

// TestHandshakeAtAStartWithAnExpiredCertificate is a host that was off for long:
// the first handshake for a name that was not read yet waits for what the CA gives
// at once. (F7)
func TestHandshakeAtAStartWithAnExpiredCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		mem := storage.NewMemory()
		on := func(c *Config) { c.Storage = mem }
		m := offline(t, f, on)
		manage(t, m, "a.example.com")
		closeManager(t, m)
		time.Sleep(91 * day)
		m = offline(t, f, on)
		if err := m.ManageAsync([]string{"a.example.com"}); err != nil {
			t.Fatal(err)
		}
		if leaf := mustLeaf(t, m, "a.example.com"); !time.Now().Before(leaf.NotAfter) {
			t.Error("an expired certificate is served although the CA gives another at once")
		}
	})
}

// TestHandshakeWithoutANameWaitsToo is a client that names no server, whatever it
// is served for: what has expired is waited for as for one that does. (F7)
func TestHandshakeWithoutANameWaitsToo(t *testing.T) {
	for _, tt := range []struct {
		name, managed string
		hello         *tls.ClientHelloInfo
		change        func(*Config)
	}{
		{"the only one", "a.example.com", helloFor("", "10.0.0.1"), nil},
		{"the only one, a wildcard", "*.example.com", helloFor("", ""), nil},
		{"the only one, by an address", "a.example.com", helloFor("192.0.2.7", ""), nil},
		{"the only address", "192.0.2.1", helloFor("", "10.0.0.1"), nil},
		{"the address", "192.0.2.1", helloFor("", "192.0.2.1"), nil},
		{"the default", "a.example.com", helloFor("", ""), func(c *Config) { c.DefaultName = "a.example.com" }},
		{"the fallback", "a.example.com", helloFor("x.example.org", ""), func(c *Config) { c.FallbackName = "a.example.com" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeSigner(t)
				f.validity = func() (from, to time.Time) { return time.Now(), time.Now().Add(time.Hour) }
				m := offline(t, f, func(c *Config) {
					if tt.change != nil {
						tt.change(c)
					}
				})
				manage(t, m, tt.managed)
				f.set(func() { f.err = errors.New("down") })
				time.Sleep(time.Hour + time.Minute + 1)
				f.set(func() {
					f.err = nil
					f.hook = func(ctx context.Context) error { return waitFor(ctx, 3*time.Second) }
				})
				go func() { _ = m.Renew(context.Background(), tt.managed) }()
				time.Sleep(time.Millisecond)
				cert, err := m.GetCertificate(tt.hello)
				if err != nil || !time.Now().Before(cert.Leaf.NotAfter) {
					t.Errorf("an expired certificate, or none, is served: %v", err)
				}
			})
		})
	}
}

// TestHandshakeWaitsForFiveSecondsInAll has several names in question whose
// certificates cannot be read. (F7, F68)
func TestHandshakeWaitsForFiveSecondsInAll(t *testing.T) {
	names := []string{"a.example.com", "*.example.com", "b.example.com", "c.example.com", "192.0.2.1"}
	for _, hello := range []*tls.ClientHelloInfo{helloFor("a.example.com", "192.0.2.1"), helloFor("", "192.0.2.1"), helloFor("192.0.2.9", "192.0.2.1")} {
		synctest.Test(t, func(t *testing.T) {
			f := newFaulty(storage.NewMemory())
			m := offline(t, newFakeSigner(t), func(c *Config) {
				c.Storage, c.DefaultName, c.FallbackName = f, "b.example.com", "c.example.com"
			})
			f.set(func(call) fault { return fault{delay: time.Hour} })
			if err := m.ManageAsync(names); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if cert, err := m.GetCertificate(hello); cert != nil || err == nil || time.Since(began) > 5*time.Second {
				t.Errorf("%q: certificate %v, %v, after %v", hello.ServerName, cert != nil, err, time.Since(began))
			}
			f.set(nil)
		})
	}
}

// TestExpiryIsToldOnceItComes has a clock that was ahead say that a certificate has
// expired, and be set right: the expiry is told of when it comes. (F8)
func TestExpiryIsToldOnceItComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		f.validity = func() (from, to time.Time) { return time.Now(), time.Now().Add(day) }
		var events eventLog
		m := offline(t, f, func(c *Config) { c.OnEvent = events.add })
		manage(t, m, "a.example.com")
		SawExpired(m, "a.example.com")
		f.set(func() { f.err = errors.New("down") })
		time.Sleep(day + time.Minute)
		if n := events.count(EventExpired); n != 1 {
			t.Errorf("its expiry was told %d times", n)
		}
	})
}

// TestClockThatIsBehind starts a host whose clock is a year behind, as without a
// battery, on what was stored: that is served, though by that clock nothing of it is
// valid yet, nothing is ordered in its place, and what is asked for by the clock is
// asked at a pace. The two times are those of two bubbles. (F8)
func TestClockThatIsBehind(t *testing.T) {
	var values map[string][]byte
	f, r := stapling(t)
	spec := Spec{Names: []string{"a.example.com"}, MustStaple: true}
	names := []string{"b.example.com", "*.b.example.com"}
	var orders int
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(365 * day)
		mem := storage.NewMemory()
		m := startStapling(t, f, r, mem)
		if err := m.Manage(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		manage(t, m, names...)
		time.Sleep(70 * day) // all are renewed once
		f.set(func() { f.err = errors.New("down") })
		if m.ManageSync(t.Context(), []string{"c.example.com"}) == nil {
			t.Fatal("a certificate came from a CA that is down")
		}
		f.set(func() { f.err = nil })
		orders = f.count()
		values = valuesOf(t, mem)
	})
	synctest.Test(t, func(t *testing.T) {
		mem := storage.NewMemory()
		storeAll(t, mem, values)
		before := r.count()
		m := startStapling(t, f, r, mem)
		if err := m.Manage(t.Context(), spec); err != nil {
			t.Errorf("Manage: %v", err)
		}
		if err := m.ManageSync(t.Context(), names); err != nil {
			t.Errorf("ManageSync: %v", err)
		}
		time.Sleep(7 * day)
		for _, name := range []string{"a.example.com", "b.example.com", "x.b.example.com"} {
			if leaf := leafOf(m, name); leaf == nil || !leaf.NotBefore.After(time.Now()) {
				t.Errorf("%s: served is %v", name, leaf)
			}
		}
		if n := f.count() - orders; n != 0 {
			t.Errorf("%d orders", n)
		}
		if n := r.count() - before; n > 3*7*50 {
			t.Errorf("the responder was asked %d times in a week", n)
		}
	})
}
