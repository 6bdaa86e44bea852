package certwright

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

// replacing reports whether a newOrder request names a replaced certificate.
func replacing(r *fakeca.Request) bool {
	var o struct{ Replaces string }
	return json.Unmarshal(r.Payload, &o) == nil && o.Replaces != ""
}

func TestA1_AlreadyReplaced(t *testing.T) {
	for _, kind := range []string{"alreadyReplaced", "conflict", "malformed"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{ARIRetryAfter: day})
				m := start(t, conf)
				manage(t, m, "a.example.com")
				first := mustLeaf(t, m, "a.example.com")
				remove := ca.On(fakeca.Rule{Endpoint: "newOrder", When: replacing, Problem: fakeca.NewProblem(kind, http.StatusConflict, "already has a replacement order")})
				time.Sleep(65 * day)
				if mustLeaf(t, m, "a.example.com").Equal(first) {
					t.Fatal("the certificate was not renewed")
				}
				if n := ca.Count("newOrder"); n != 3 {
					t.Errorf("%d orders; want 3: an issue, a refusal, a renewal", n)
				}
				remove()
				time.Sleep(65 * day)
				if all := ca.Requests("newOrder"); len(all) != 4 || !replacing(&all[3]) {
					t.Errorf("%d orders; want 4, and the last names what it replaces", len(all))
				}
			})
		})
	}
}

// TestA1_RefusalIsRemembered has the order without the replaced certificate fail
// for another reason.
func TestA1_RefusalIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		m := start(t, conf)
		manage(t, m, "a.example.com")
		ca.On(fakeca.Rule{Endpoint: "newOrder", When: replacing, Problem: fakeca.NewProblem("alreadyReplaced", http.StatusConflict, "")})
		ca.On(fakeca.Rule{Endpoint: "newOrder", N: 2, Problem: fakeca.RateLimited(time.Hour, "")})
		time.Sleep(65 * day)
		var named []bool
		for _, r := range ca.Requests("newOrder") {
			named = append(named, replacing(&r))
		}
		if want := []bool{false, true, false, false}; !slices.Equal(named, want) {
			t.Errorf("orders name what they replace: %v; want %v", named, want)
		}
		if n := len(ca.Certificates()); n != 2 {
			t.Errorf("%d certificates; want 2", n)
		}
	})
}

// TestA1_ReplacesAfterALongSilence renews when nothing was asked of the CA for
// so long that its directory has to be fetched again.
func TestA1_ReplacesAfterALongSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		conf.DisableRenewalInfo = true
		m := start(t, conf)
		manage(t, m, "a.example.com")
		time.Sleep(30 * day)
		if err := m.Renew(t.Context(), "a.example.com"); err != nil {
			t.Fatal(err)
		}
		if all := ca.Requests("newOrder"); len(all) != 2 || !replacing(&all[1]) {
			t.Errorf("%d orders; want 2, and the second names what it replaces", len(all))
		}
	})
}

func TestA2_ServerErrorWithReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		ca.On(fakeca.Rule{Endpoint: "newOrder", When: replacing, Status: 500})
		m := start(t, conf)
		manage(t, m, "a.example.com")
		first := mustLeaf(t, m, "a.example.com")
		time.Sleep(65 * day)
		if mustLeaf(t, m, "a.example.com").Equal(first) {
			t.Error("the certificate was not renewed")
		}
		if n := ca.Count("newOrder"); n > 5 {
			t.Errorf("%d orders; want no more than 5: an issue, three tries with and one without", n)
		}
	})
}

// TestA4_ExpiredInStorage starts with a certificate that has expired, and a CA
// that suggests all kinds of windows for it.
func TestA4_ExpiredInStorage(t *testing.T) {
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
					m := start(t, conf)
					manage(t, m, "a.example.com")
					first := mustLeaf(t, m, "a.example.com")
					synctest.Wait()
					closeManager(t, m)
					time.Sleep(time.Until(first.NotAfter) + ago)
					m = start(t, conf)
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

// quickSigner is an Issuer that signs at once, for tests with many certificates.
type quickSigner struct {
	ca   *fakeca.CA
	life time.Duration
	ocsp string // responder

	mu     sync.Mutex // guards the fields below
	issued []time.Time
	busy   int
	most   int
	window func(*x509.Certificate) (start, end time.Time)
}

func (*quickSigner) ID() string { return "signer" }

func (f *quickSigner) Issue(ctx context.Context, req IssueRequest) (Issued, error) {
	f.mu.Lock()
	f.issued = append(f.issued, time.Now())
	f.busy++
	f.most = max(f.most, f.busy)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.busy--
	}()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return Issued{}, ctx.Err()
	}
	csr, err := x509.ParseCertificateRequest(req.CSR)
	if err != nil {
		return Issued{}, err
	}
	issuer, key := f.ca.Intermediate()
	leaf := leafTemplate("")
	leaf.DNSNames, leaf.NotAfter = csr.DNSNames, leaf.NotBefore.Add(f.life)
	if f.ocsp != "" {
		leaf.OCSPServer = []string{f.ocsp}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, issuer, csr.PublicKey, key)
	if err != nil {
		return Issued{}, err
	}
	var chain []byte
	for _, c := range [][]byte{der, issuer.Raw} {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})...)
	}
	return Issued{Chain: chain}, nil
}

func (f *quickSigner) RenewalInfo(_ context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
	f.mu.Lock()
	window := f.window
	f.mu.Unlock()
	if window == nil {
		return RenewalInfo{}, ErrNoRenewalInfo
	}
	start, end := window(leaf)
	return RenewalInfo{Start: start, End: end}, nil
}

// TestA7_MassRevocation moves the window of all certificates to the past.
func TestA7_MassRevocation(t *testing.T) {
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
		m := start(t, conf)
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

// TestA8_OrdersPerLifetime lets certificates of all lives be renewed for ten
// lives, with a CA's suggestion and without.
func TestA8_OrdersPerLifetime(t *testing.T) {
	for _, life := range []time.Duration{5 * time.Minute, time.Hour, day, 160 * time.Hour, 45 * day, 90 * day} {
		for _, ari := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v/%v", life, ari), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ca, conf := newFake(t, fakeca.Options{DefaultLifetime: life, NoARI: !ari, ARIRetryAfter: life / 20})
					var events eventLog
					conf.OnEvent = events.add
					m := start(t, conf)
					manage(t, m, "a.example.com")
					lives := 10
					if testing.Short() {
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

// TestA8_OddSuggestions has a CA whose windows are always past, or make no sense.
func TestA8_OddSuggestions(t *testing.T) {
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
				m := start(t, conf)
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
