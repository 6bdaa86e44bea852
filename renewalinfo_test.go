package certwright_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
)

// The CA suggests all kinds of windows for a certificate that has expired.
func TestExpiredInStorageIsReplacedWhateverTheWindow(t *testing.T) {
	windows := map[string]func(*x509.Certificate) *fakeca.Window{
		"none": func(*x509.Certificate) *fakeca.Window { return nil },
		"past": func(l *x509.Certificate) *fakeca.Window {
			return &fakeca.Window{Start: l.NotBefore, End: l.NotBefore.Add(day)}
		},
		"future": func(l *x509.Certificate) *fakeca.Window {
			return &fakeca.Window{Start: l.NotAfter.Add(300 * day), End: l.NotAfter.Add(301 * day)}
		},
		"spanning": func(l *x509.Certificate) *fakeca.Window {
			return &fakeca.Window{Start: l.NotBefore, End: l.NotAfter.Add(300 * day)}
		},
		"reversed": func(l *x509.Certificate) *fakeca.Window { return &fakeca.Window{Start: l.NotAfter, End: l.NotBefore} },
	}
	for name, ari := range windows {
		for _, ago := range []time.Duration{time.Second, 30 * day} {
			t.Run(fmt.Sprintf("%s/%v", name, ago), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ca, conf := newFake(t, fakeca.Options{ARI: ari})
					m := startAlone(t, conf)
					manage(t, m, "a.example.com")
					first := mustLeaf(t, m, "a.example.com")
					synctest.Wait()
					closeManager(t, m)
					time.Sleep(time.Until(first.NotAfter) + ago)
					m = startAlone(t, conf)
					began := time.Now()
					manage(t, m, "a.example.com")
					if leaf := mustLeaf(t, m, "a.example.com"); !leaf.NotAfter.After(time.Now()) {
						t.Errorf("served until %v at %v", leaf.NotAfter, time.Now())
					}
					if d := time.Since(began); d > time.Minute {
						t.Errorf("the renewal took %v", d)
					}
					if n := ca.Count("newOrder"); n != 2 {
						t.Errorf("%d orders", n)
					}
				})
			})
		}
	}
}

// TestMassRevocationIsSpread moves the window of all certificates to the past.
func TestMassRevocationIsSpread(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 100
	}
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		iss := &quickSigner{ca: ca, life: 90 * day}
		iss.window = func(l *x509.Certificate) (time.Time, time.Time) {
			return l.NotBefore.Add(60 * day), l.NotBefore.Add(63 * day)
		}
		conf.Issuers, conf.Workers = []Issuer{iss}, 8
		m := startAlone(t, conf)
		names := numbered(n, "example.com")
		manage(t, m, names...)
		time.Sleep(day)
		iss.mu.Lock()
		moved, plain := time.Now(), iss.window
		iss.most = 0
		iss.window = func(l *x509.Certificate) (time.Time, time.Time) {
			if l.NotBefore.Before(moved) {
				return moved.Add(-time.Hour), moved.Add(-time.Hour / 2)
			}
			return plain(l)
		}
		iss.mu.Unlock()
		time.Sleep(7 * time.Hour) // as often as the CA is asked, and some
		for _, name := range names {
			if !mustLeaf(t, m, name).NotAfter.After(moved.Add(89 * day)) {
				t.Fatalf("%s was not replaced", name)
			}
		}
		checkPace(t, iss, moved, n)
	})
}

// checkPace looks at how n renewals that began at the same time were spread.
func checkPace(t *testing.T, iss *quickSigner, from time.Time, n int) {
	t.Helper()
	iss.mu.Lock()
	defer iss.mu.Unlock()
	minutes, total := map[int]int{}, 0
	for _, at := range iss.issued {
		if d := at.Sub(from); d >= 0 {
			minutes[int(d/time.Minute)]++
			total++
		}
	}
	if total != n {
		t.Errorf("%d orders; want one for each of %d certificates", total, n)
	}
	if iss.most > 8 {
		t.Errorf("%d at once with 8 workers", iss.most)
	}
	for at, orders := range minutes {
		if orders > n/5 {
			t.Errorf("%d of %d orders in minute %d", orders, n, at)
		}
	}
}

// Certificates of all lives are renewed for ten lives, with a CA's suggestion and
// without.
func TestOrdersInALife(t *testing.T) {
	for _, life := range []time.Duration{5 * time.Minute, time.Hour, day, 160 * time.Hour, 45 * day, 90 * day} {
		for _, ari := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v/%v", life, ari), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ca, conf := newFake(t, fakeca.Options{DefaultLifetime: life, NoARI: !ari, ARIRetryAfter: life / 20})
					var events eventLog
					conf.OnEvent = events.add
					m := startAlone(t, conf)
					manage(t, m, "a.example.com")
					lives := 10
					if testing.Short() || raceEnabled {
						lives = 3
					}
					for range lives * 20 {
						time.Sleep(life / 20)
						if leaf := mustLeaf(t, m, "a.example.com"); !time.Now().Before(leaf.NotAfter) {
							t.Fatalf("an expired certificate is served at %v", time.Now())
						}
					}
					perLife := float64(ca.Count("newOrder")-1) / float64(lives)
					if perLife < 1.3 || perLife > 1.8 {
						t.Errorf("%.1f orders in a life", perLife)
					}
					if events.count(EventFailed)+events.count(EventExpired) != 0 {
						t.Errorf("events %v", events.kinds(""))
					}
				})
			})
		}
	}
}

// The CA's windows are always past, or make no sense. (F24)
func TestOddSuggestionsCostFewOrders(t *testing.T) {
	at := func(start, end float64) func(*x509.Certificate) *fakeca.Window {
		return func(l *x509.Certificate) *fakeca.Window {
			life := float64(l.NotAfter.Sub(l.NotBefore))
			return &fakeca.Window{Start: l.NotBefore.Add(time.Duration(start * life)), End: l.NotBefore.Add(time.Duration(end * life))}
		}
	}
	for _, tt := range []struct {
		name    string
		ari     func(*x509.Certificate) *fakeca.Window
		perLife float64 // at most
	}{
		{"always past", at(-2, -1), 90 * 4}, // the spacing of six hours
		{"reversed", at(0.9, 0.1), 1.8},
		{"after the end", at(1.5, 2), 1.8},
		{"late", at(0.95, 0.99), 1.8},
		{"whole life", at(0, 1), 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{ARI: tt.ari, ARIRetryAfter: day})
				log, logs := observed(slog.LevelWarn)
				conf.Logger = log
				m := startAlone(t, conf)
				manage(t, m, "a.example.com")
				lives := 2.0
				if tt.perLife > 100 {
					lives = 0.1
				}
				for range 40 {
					time.Sleep(time.Duration(lives * float64(90*day) / 40))
					if leaf := mustLeaf(t, m, "a.example.com"); !time.Now().Before(leaf.NotAfter) {
						t.Fatalf("an expired certificate is served at %v", time.Now())
					}
				}
				n := ca.Count("newOrder")
				if got := float64(n-1) / lives; got > tt.perLife {
					t.Errorf("%.1f orders in a life; want at most %v", got, tt.perLife)
				}
				if logs.Len() > n {
					t.Errorf("%d warnings for %d certificates", logs.Len(), n)
				}
			})
		})
	}
}

// informing is a signer that suggests windows.
type informing struct {
	*fakeSigner
	info func() (RenewalInfo, error)
}

func (i *informing) RenewalInfo(context.Context, *x509.Certificate) (RenewalInfo, error) {
	return i.info()
}

// The window stays that a CA suggested before it said that it has none. (F24)
func TestWindowStaysWhenTheCAHasNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		asked := 0
		iss := &informing{newFakeSigner(t), func() (RenewalInfo, error) {
			if asked++; asked > 1 {
				return RenewalInfo{}, ErrNoRenewalInfo
			}
			return RenewalInfo{Start: begin.Add(10 * day), End: begin.Add(11 * day)}, nil
		}}
		m := offline(t, iss.fakeSigner, func(c *Config) { c.Issuers, c.DisableRenewalInfo = []Issuer{iss}, false })
		manage(t, m, "a.example.com")
		synctest.Wait()
		before := statusFor(t, m, "a.example.com")
		time.Sleep(3 * day)
		after := statusFor(t, m, "a.example.com")
		if asked < 2 || before.WindowStart.IsZero() || !after.WindowStart.Equal(before.WindowStart) || !after.RenewAt.Equal(before.RenewAt) {
			t.Errorf("asked %d times; before %v and %v, after %v and %v", asked, before.WindowStart, before.RenewAt, after.WindowStart, after.RenewAt)
		}
	})
}

// A CA suggests a window and then answers with what makes no sense: the window stays,
// over a restart too, and a renewal that is due is not called off. (F24; RFC 9773
// §4.2)
func TestNonsenseDoesNotReplaceAWindow(t *testing.T) {
	window := func(start, end string) string {
		return fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q}}`, start, end)
	}
	for name, body := range map[string]string{
		"an empty object":            `{}`,
		"a window of null":           `{"suggestedWindow":null}`,
		"null":                       `null`,
		"a page":                     `<html></html>`,
		"words for times":            window("soon", "later"),
		"the end before the start":   window("2000-02-02T00:00:00Z", "2000-02-01T00:00:00Z"),
		"no length":                  window("2000-02-02T00:00:00Z", "2000-02-02T00:00:00Z"),
		"after the end":              window("2000-06-01T00:00:00Z", "2000-06-02T00:00:00Z"),
		"the zero time":              window("0001-01-01T00:00:00Z", "2000-03-01T00:00:00Z"),
		"a thousand years":           window("1001-01-01T00:00:00Z", "2000-03-30T00:00:00Z"),
		"a problem with status 200":  `{"type":"urn:ietf:params:acme:error:serverInternal","detail":"no"}`,
		"a good one, then cut short": window("2000-03-01T00:00:00Z", "2000-03-02T00:00:00Z")[:70],
	} {
		restart := len(body)%2 == 0
		t.Run(fmt.Sprintf("%s/restart=%v", name, restart), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{ARI: func(l *x509.Certificate) *fakeca.Window {
					return &fakeca.Window{Start: l.NotBefore.Add(3 * day), End: l.NotBefore.Add(4 * day)}
				}})
				m := startAlone(t, conf)
				manage(t, m, "a.example.com")
				first := mustLeaf(t, m, "a.example.com")
				time.Sleep(day)
				ca.On(fakeca.Rule{Endpoint: "renewalInfo", Status: 200, Body: []byte(body), ContentType: "application/json"})
				remove := ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.NewProblem("serverInternal", 500, "")})
				time.Sleep(day)
				if restart {
					closeManager(t, m)
					conf.Issuers = []Issuer{issuerAt(ca)}
					m = startAlone(t, conf)
					manage(t, m, "a.example.com")
					time.Sleep(time.Minute)
				}
				before := statusFor(t, m, "a.example.com")
				if want := first.NotBefore.Add(3 * day); !before.WindowStart.Equal(want) || before.RenewAt.Before(want) || before.RenewAt.After(want.Add(day)) {
					t.Fatalf("the window is gone: %+v", before)
				}
				time.Sleep(2*day + time.Hour) // it is due, and the CA is down
				if s := statusFor(t, m, "a.example.com"); s.State != StateFailing || !s.RenewAt.Equal(before.RenewAt) {
					t.Errorf("the renewal was called off: %+v", s)
				}
				remove()
				time.Sleep(day)
				if mustLeaf(t, m, "a.example.com").Equal(first) {
					t.Error("not renewed")
				}
			})
		})
	}
}
