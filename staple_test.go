package certwright_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/storage"
)

// scripted is a responder of a fakeSigner that answers as it is told.
type scripted struct {
	f *fakeSigner

	mu     sync.Mutex // guards the fields below
	asked  []time.Time
	change func(*ocsp.Response) error // of a good response of four days; nil: none
	header http.Header                // of an error
}

func (r *scripted) set(change func(*ocsp.Response) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.change = change
}

func (r *scripted) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.asked)
}

func (r *scripted) RoundTrip(req *http.Request) (*http.Response, error) {
	raw, err := ocspRequest(req)
	if err != nil {
		return nil, err
	}
	q, err := ocsp.ParseRequest(raw)
	if err != nil {
		return nil, err
	}
	now := time.Now().Truncate(time.Second)
	out := ocsp.Response{Status: ocsp.Good, SerialNumber: q.SerialNumber, ThisUpdate: now, NextUpdate: now.Add(4 * day)}
	r.mu.Lock()
	r.asked = append(r.asked, now)
	change, header := r.change, r.header
	r.mu.Unlock()
	if change != nil {
		if err := change(&out); errors.Is(err, errHangs) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		} else if err != nil {
			return &http.Response{StatusCode: http.StatusServiceUnavailable, Header: header, Body: http.NoBody, Request: req}, nil
		}
	}
	body, err := ocsp.CreateResponse(r.f.by, r.f.by, out, r.f.key)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/ocsp-response"}},
		Body: io.NopCloser(bytes.NewReader(body)), Request: req,
	}, nil
}

var errHangs = errors.New("hangs")

func sayNothing(*ocsp.Response) error { return errors.New("down") }

func sayLate(*ocsp.Response) error { return errHangs }

func sayUnknown(r *ocsp.Response) error { r.Status = ocsp.Unknown; return nil }

// stapling is a signer whose certificates name a responder.
func stapling(t *testing.T) (*fakeSigner, *scripted) {
	t.Helper()
	f := newFakeSigner(t)
	f.addIntermediate(t)
	f.ocsp = ocspURL
	return f, &scripted{f: f}
}

// startStapling is a Manager on a storage that asks r.
func startStapling(t *testing.T, f *fakeSigner, r *scripted, mem Storage) *Manager {
	t.Helper()
	m := offline(t, f, func(c *Config) { c.DisableStapling, c.Storage = false, mem })
	UseResponder(m, r)
	return m
}

// stapleFor returns the response that a handshake gets, nil when it gets none, and
// fails the test for one that no client takes.
func stapleFor(t *testing.T, m *Manager, f *fakeSigner, name string) *ocsp.Response {
	t.Helper()
	cert, err := m.GetCertificate(helloFor(name, ""))
	if err != nil {
		t.Fatal(err)
	}
	if len(cert.OCSPStaple) == 0 {
		return nil
	}
	r, err := ocsp.ParseResponseForCert(cert.OCSPStaple, cert.Leaf, f.by)
	if err != nil {
		t.Fatalf("the response is another certificate's: %v", err)
	}
	if now := time.Now(); r.Status != ocsp.Good || !now.Before(r.NextUpdate) {
		t.Fatalf("the response is %d, until %v, at %v", r.Status, r.NextUpdate, now)
	}
	return r
}

// A response is stapled while it is good and in its time, to its own certificate.
// (F30)
func TestStapleIsGoodAndInItsTime(t *testing.T) {
	const name = "a.example.com"
	for _, tt := range []struct {
		name   string
		after  func(*ocsp.Response) error // from the second day on
		header http.Header
	}{
		{"the responder fails", sayNothing, nil},
		{"the responder hangs", sayLate, nil},
		{"the responder wants to be left alone", sayNothing, http.Header{"Retry-After": {"604800"}}},
		{"the responder does not know it any more", sayUnknown, nil},
		{"an older response comes", func(r *ocsp.Response) error {
			r.ThisUpdate = r.ThisUpdate.Add(-3 * day)
			r.NextUpdate = r.ThisUpdate.Add(3*day + time.Hour)
			return nil
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, r := stapling(t)
				r.header = tt.header
				m := startStapling(t, f, r, storage.NewMemory())
				manage(t, m, name)
				began := time.Now()
				synctest.Wait()
				first := stapleFor(t, m, f, name)
				if first == nil {
					t.Fatal("nothing is stapled")
				}
				r.set(tt.after)
				time.Sleep(time.Second / 2) // at no time at which anything is due
				for time.Since(began) < 4*day-11*time.Minute {
					time.Sleep(10 * time.Minute)
					if s := stapleFor(t, m, f, name); s == nil || s.ThisUpdate.Before(first.ThisUpdate) {
						t.Fatalf("after %v: %v", time.Since(began), s)
					}
				}
				for range 150 {
					time.Sleep(7 * time.Second)
					stapleFor(t, m, f, name)
				}
				if n := r.count(); n > 100 || tt.header != nil && n > 2 {
					t.Errorf("the responder was asked %d times in four days", n)
				}
			})
		})
	}
}

// A response that a Manager had is stapled by the next one from the start on, though
// the responder says nothing, or less. (F30)
func TestStapleOutlivesARestart(t *testing.T) {
	const name = "a.example.com"
	older := func(r *ocsp.Response) error {
		r.ThisUpdate = r.ThisUpdate.Add(-4 * day)
		r.NextUpdate = r.ThisUpdate.Add(5 * day)
		return nil
	}
	for _, tt := range []struct {
		name   string
		before func(*ocsp.Response) error // after the first day
		after  func(*ocsp.Response) error // of the restart
	}{
		{"the responder fails", nil, sayNothing},
		{"the responder hangs", nil, sayLate},
		{"the responder does not know it", nil, sayUnknown},
		{"it did not know it before", sayUnknown, sayNothing},
		{"it had an older one before", older, sayNothing},
		{"it has an older one", nil, older},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, r := stapling(t)
				mem := storage.NewMemory()
				m := startStapling(t, f, r, mem)
				manage(t, m, name)
				began := time.Now()
				synctest.Wait()
				r.set(tt.before)
				if tt.before != nil {
					time.Sleep(2 * day) // another was asked for
				}
				first := stapleFor(t, m, f, name)
				closeManager(t, m)
				time.Sleep(3*day - time.Since(began))
				r.set(tt.after)
				m = startStapling(t, f, r, mem)
				manage(t, m, name)
				time.Sleep(time.Second)
				for time.Until(first.NextUpdate) > time.Minute {
					if s := stapleFor(t, m, f, name); s == nil || s.ThisUpdate.Before(first.ThisUpdate) {
						t.Fatalf("after %v: %v", time.Since(began), s)
					}
					time.Sleep(30 * time.Minute)
				}
			})
		})
	}
}

// A responder that lags behind another does not undo what that has said. (F30)
func TestOlderGoodResponseIsNotStapledToARevokedCertificate(t *testing.T) {
	const name = "a.example.com"
	synctest.Test(t, func(t *testing.T) {
		f, r := stapling(t)
		m := startStapling(t, f, r, storage.NewMemory())
		manage(t, m, name)
		began := time.Now()
		first := mustLeaf(t, m, name)
		synctest.Wait()
		f.set(func() { f.err = errors.New("down") }) // it cannot be replaced
		r.set(func(r *ocsp.Response) error {
			if time.Since(began) < 4*day {
				r.Status, r.RevokedAt, r.RevocationReason = ocsp.Revoked, r.ThisUpdate, ocsp.KeyCompromise
			} else {
				r.ThisUpdate = began
			}
			return nil
		})
		for range 6 * 24 {
			time.Sleep(time.Hour)
			if s := statusFor(t, m, name); s.Revoked && stapleFor(t, m, f, name) != nil {
				t.Fatal("a good response goes with a revoked certificate")
			}
		}
		if !mustLeaf(t, m, name).Equal(first) {
			t.Error("this test shows nothing")
		}
	})
}

// However long a response is good, its responder is asked at a pace. (F30)
func TestResponderIsAskedAtAPace(t *testing.T) {
	const name = "a.example.com"
	for life, most := range map[time.Duration]int{
		10 * 365 * day: 1, 62 * day: 1, 10 * day: 1, day: 9, 30 * time.Minute: 200, time.Minute: 100, 0: 200, -1: 9,
	} {
		t.Run(life.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, r := stapling(t)
				r.set(func(o *ocsp.Response) error {
					if r.count() > 1000 {
						return errHangs // it would be a loop that costs no time
					}
					if o.NextUpdate = o.ThisUpdate.Add(life); life < 0 {
						o.NextUpdate = time.Time{} // RFC 6960 §4.2.2.1
					}
					return nil
				})
				m := startStapling(t, f, r, storage.NewMemory())
				manage(t, m, name)
				time.Sleep(4 * day)
				if n := r.count(); n > most {
					t.Errorf("asked %d times in four days; want %d at most", n, most)
				}
			})
		})
	}
}
