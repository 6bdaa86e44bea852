package certwright_test

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// breaking is code of the caller's that breaks in a hook, for one name only.
type breaking struct {
	hook  string
	how   func(ctx context.Context) error
	name  string      // empty: badName
	ended atomic.Bool // it breaks no more
}

const badName = "bad.example.com"

func (b *breaking) in(ctx context.Context, hook, about string) error {
	if hook != b.hook || !strings.Contains(about, cmp.Or(b.name, badName)) || b.ended.Load() {
		return nil
	}
	return b.how(ctx)
}

// breakingSolver, breakingLocker, breakingStorage and breakingIssuer have the hooks.
type breakingSolver struct{ *breaking }

func (s breakingSolver) Present(ctx context.Context, ch Challenge) error {
	return s.in(ctx, "Present", ch.Name)
}

func (s breakingSolver) CleanUp(ctx context.Context, ch Challenge) error {
	return s.in(ctx, "CleanUp", ch.Name)
}

type breakingLocker struct {
	Locker
	*breaking
}

func (l breakingLocker) Lock(ctx context.Context, name string) (Lease, error) {
	if err := l.in(ctx, "Lock", name); err != nil {
		return nil, err
	}
	lease, err := l.Locker.Lock(ctx, name)
	return breakingLease{lease, l.breaking, name}, err
}

type breakingLease struct {
	Lease
	*breaking
	name string
}

func (l breakingLease) Unlock(ctx context.Context) error {
	return errors.Join(l.Lease.Unlock(ctx), l.in(ctx, "Unlock", l.name))
}

type breakingStorage struct {
	*storage.Memory
	*breaking
}

func (s breakingStorage) Load(ctx context.Context, key string) ([]byte, error) {
	if err := s.in(ctx, "Load", key); err != nil {
		return nil, err
	}
	return s.Memory.Load(ctx, key)
}

func (s breakingStorage) Store(ctx context.Context, key string, value []byte) error {
	return errors.Join(s.in(ctx, "Store", key), s.Memory.Store(ctx, key, value))
}

func (s breakingStorage) Delete(ctx context.Context, key string) error {
	return errors.Join(s.in(ctx, "Delete", key), s.Memory.Delete(ctx, key))
}

type breakingIssuer struct {
	*aroundIssuer
	*breaking
}

func (i breakingIssuer) Issue(ctx context.Context, req IssueRequest) (Issued, error) {
	if err := i.in(ctx, "Issue", req.Names[0]); err != nil {
		return Issued{}, err
	}
	return i.aroundIssuer.Issue(ctx, req)
}

func (i breakingIssuer) RenewalInfo(ctx context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
	if err := i.in(ctx, "RenewalInfo", leaf.DNSNames[0]); err != nil {
		return RenewalInfo{}, err
	}
	return RenewalInfo{}, ErrNoRenewalInfo
}

// Code of the caller's panics, ends its goroutine, hangs until its context ends or
// hangs whatever its context says: another name has its certificate at once, what
// is stored is served within a minute and a half, and when the code works again so
// does the name. (F5, F80)
func TestCallersCodeThatBreaksCostsItsOwnNameOnly(t *testing.T) {
	ways := map[string]func(ctx context.Context, end chan struct{}) error{
		"panics":         func(context.Context, chan struct{}) error { panic("no luck") },
		"Goexit":         func(context.Context, chan struct{}) error { runtime.Goexit(); return nil },
		"nil *StepError": func(context.Context, chan struct{}) error { var e *StepError; return e },
		"hangs":          func(ctx context.Context, _ chan struct{}) error { <-ctx.Done(); return context.Cause(ctx) },
		"hangs whatever": func(_ context.Context, end chan struct{}) error { <-end; return errors.New("at last") },
	}
	for hook, isNeeded := range map[string]bool{
		"Present": true, "Lock": true, "Load": true, "Store": true, "Issue": true,
		"CleanUp": false, "Unlock": false, "Delete": false, "RenewalInfo": false,
	} {
		for way, how := range ways {
			t.Run(hook+"/"+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					end := make(chan struct{})
					b := &breaking{hook: hook, how: func(ctx context.Context) error { return how(ctx, end) }}
					_, conf := newFake(t, fakeca.Options{})
					mem := conf.Storage.(*storage.Memory)
					conf.Storage, conf.Locker = breakingStorage{mem, b}, breakingLocker{mem, b}
					if hook == "Issue" || hook == "RenewalInfo" {
						conf.Issuers = []Issuer{breakingIssuer{&aroundIssuer{fakeSigner: newFakeSigner(t)}, b}}
					} else {
						iss := *conf.Issuers[0].(*ACME)
						iss.Solvers, iss.DisableTLSALPN01 = map[string]Solver{"http-01": breakingSolver{b}}, true
						conf.Issuers = []Issuer{&iss}
					}
					m := start(t, conf)
					if err := m.ManageAsync([]string{badName}); err != nil {
						t.Fatal(err)
					}
					began := time.Now()
					manage(t, m, "good.example.com")
					if took := time.Since(began); took > 3*time.Second {
						t.Errorf("another name took %v", took)
					}
					time.Sleep(90 * time.Second)
					if !isNeeded {
						mustLeaf(t, m, badName)
					}
					time.Sleep(time.Hour)
					b.ended.Store(true)
					close(end)
					time.Sleep(2 * time.Hour)
					mustLeaf(t, m, badName)
				})
			})
		}
	}
}

// A program is started every five seconds while its Issuer breaks: that is asked
// as seldom as one that returns an error. (F80, F81)
func TestRestartsDoNotAskABrokenIssuerEachTime(t *testing.T) {
	for name, how := range map[string]func() error{
		"panics": func() error { panic("no luck") },
		"Goexit": func() error { runtime.Goexit(); return nil },
		"nil":    func() error { var e *StepError; return e },
		"error":  func() error { return errors.New("no") },
		"gone":   func() error { return fmt.Errorf("no: %w", ErrOrderGone) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, mem, n := newFakeSigner(t), storage.NewMemory(), 0
				f.hook = func(context.Context) error { n++; return how() }
				for began := time.Now(); time.Since(began) < 7*time.Minute; time.Sleep(5 * time.Second) {
					m := offline(t, f, func(c *Config) { c.Storage = mem })
					if err := m.ManageSync(t.Context(), []string{"a.example.com"}); err == nil || n > 1 && !strings.Contains(err.Error(), "fake: ") {
						t.Fatalf("ManageSync = %v", err)
					}
					closeManager(t, m)
				}
				if n > 4 { // at 0, 1 and 3.5 minutes, and one more by chance
					t.Errorf("asked %d times in seven minutes", n)
				}
			})
		})
	}
}

// What hangs although it was told to end keeps Close waiting, which says what it is.
func TestCloseNamesWhatDoesNotEnd(t *testing.T) {
	for what, begin := range map[string]func(t *testing.T, hang func()) *Manager{
		"Config.OnEvent": func(t *testing.T, hang func()) *Manager {
			m := offline(t, newFakeSigner(t), func(c *Config) { c.OnEvent = func(Event) { hang() } })
			manage(t, m, badName)
			return m
		},
		"the release of a lease": func(t *testing.T, hang func()) *Manager {
			b := &breaking{hook: "Unlock", how: func(context.Context) error { hang(); return nil }}
			m := offline(t, newFakeSigner(t), func(c *Config) { c.Locker = breakingLocker{c.Storage.(Locker), b} })
			manage(t, m, badName)
			return m
		},
		"the clean-up of http-01 for " + badName: func(t *testing.T, hang func()) *Manager {
			b := &breaking{hook: "CleanUp", how: func(context.Context) error { hang(); return nil }}
			_, conf := newFake(t, fakeca.Options{})
			iss := *conf.Issuers[0].(*ACME)
			iss.Solvers, iss.DisableTLSALPN01 = map[string]Solver{"http-01": breakingSolver{b}}, true
			conf.Issuers = []Issuer{&iss}
			m := start(t, conf)
			manage(t, m, badName)
			return m
		},
		"the look at what other instances changed": func(t *testing.T, hang func()) *Manager {
			s := newFaulty(storage.NewMemory())
			m := offline(t, newFakeSigner(t), func(c *Config) { c.Storage, c.CleanInterval = s, -1 })
			manage(t, m, badName)
			s.set(func(c call) fault {
				if c.op == "list" {
					return fault{list: func(keys []string) []string { hang(); return keys }}
				}
				return fault{}
			})
			return m
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				end := make(chan struct{})
				m := begin(t, func() { <-end })
				time.Sleep(time.Minute)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				if err := m.Close(ctx); err == nil || !strings.Contains(err.Error(), what) {
					t.Errorf("Close = %v; want %q in it", err, what)
				}
				close(end)
				closeManager(t, m)
			})
		})
	}
}

// An Issuer keeps IssueRequest.Save and calls it when its call is long over, on a
// context of its own.
func TestSaveThatComesLateIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &aroundIssuer{fakeSigner: newFakeSigner(t)}
		var saves []func(context.Context, []byte) error
		f.issue = func(_ context.Context, req IssueRequest, _ func() (Issued, error)) (Issued, error) {
			saves = append(saves, req.Save)
			req.Progress("late", strings.Repeat("so far ", 1000))
			return Issued{}, errors.Join(req.Save(context.Background(), fmt.Append(nil, len(saves))), errors.New("no"))
		}
		mem := storage.NewMemory()
		m := offline(t, f.fakeSigner, func(c *Config) { c.Issuers, c.Storage = []Issuer{f}, mem })
		_ = m.ManageSync(t.Context(), []string{"a.example.com"}) // which fails
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(saves) < 2 {
			t.Fatalf("asked %d times", len(saves))
		}
		if err := saves[0](context.Background(), []byte("0")); err == nil {
			t.Error("what an attempt saves that is over is stored")
		}
		o, err := recordsOn(mem).LoadOrder(t.Context(), "a.example.com+p256", f.ID())
		if err != nil || string(o.State) != fmt.Sprint(len(saves)) {
			t.Errorf("stored is %v, %v", o, err)
		}
	})
}

// ACME.Timeout is what an attempt may take, also when it is long.
func TestACMETimeoutIsObeyed(t *testing.T) {
	for timeout, takes := range map[time.Duration]time.Duration{0: 4 * time.Minute, 3 * time.Hour: 2 * time.Hour, time.Minute: 2 * time.Minute} {
		t.Run(timeout.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{Challenges: []string{"dns-01"}})
				b := &breaking{hook: "Present", how: func(ctx context.Context) error { return waitFor(ctx, takes) }}
				iss := issuerAt(ca)
				iss.Timeout, iss.Solvers = timeout, map[string]Solver{"dns-01": breakingSolver{b}}
				conf.Issuers = []Issuer{iss}
				m := start(t, conf)
				began := time.Now()
				err := m.ManageSync(t.Context(), []string{badName})
				took := time.Since(began)
				if timeout == 0 {
					timeout = 5 * time.Minute
				}
				if (err == nil) != (takes < timeout) || took > timeout+time.Second {
					t.Errorf("ManageSync = %v after %v", err, took)
				}
			})
		})
	}
}
