package certwright_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

const (
	hanging     = 40   // names that hang
	manyHanging = 1000 // that hang beside their certificates
	others      = 300  // that do not, given with them
	lateOnes    = 100  // given an hour later
)

func isHanging(text string) bool { return strings.Contains(text, "hangs.example.org") }

// slowNet takes a tenth of a second for each request, as a network does.
type slowNet struct{ http.RoundTripper }

func (s slowNet) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := waitFor(r.Context(), 100*time.Millisecond); err != nil {
		return nil, err
	}
	return s.RoundTripper.RoundTrip(r)
}

// hangs is one way to hang.
type hangs struct {
	// kind is the same for those that differ in nothing but the names that hang.
	kind string
	// conf makes the configuration. release ends what ignores its context; it may
	// be nil.
	conf func(t *testing.T) (conf Config, release func())
	// specs are how the names that hang are managed; nil: as the others.
	specs func(conf Config, names []string) []Spec
	// done reports whether all is done for a name; nil: it has a certificate.
	done func(s NameStatus) bool
	// many names hang, and have their certificates.
	many bool
	// responder is for OCSP; nil: nothing is stapled.
	responder func(conf Config) http.RoundTripper
}

// atCA has the requests to an endpoint hang that are about a name that hangs.
func atCA(endpoint string) hangs {
	return hangs{kind: "CA", conf: func(t *testing.T) (Config, func()) {
		ca, conf := newFake(t, fakeca.Options{PollsBeforeValid: 1, PollsProcessing: 1, KeepRequests: -1})
		var mu sync.Mutex
		about := map[string]bool{} // URLs
		isAbout := func(r *fakeca.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			return about[r.URL] || isHanging(string(r.Payload))
		}
		learn := func(_ *fakeca.Request, reply map[string]any) {
			mu.Lock()
			defer mu.Unlock()
			note := func(v any) {
				if url, ok := v.(string); ok {
					about[url] = true
					about[strings.Replace(url, "/finalize/", "/order/", 1)] = true
				}
			}
			note(reply["finalize"])
			note(reply["certificate"])
			list, _ := reply["authorizations"].([]any)
			for _, v := range list {
				note(v)
			}
			list, _ = reply["challenges"].([]any)
			for _, v := range list {
				note(v.(map[string]any)["url"])
			}
		}
		ca.On(fakeca.Rule{Endpoint: endpoint, When: isAbout, Hang: true})
		for _, e := range []string{"newOrder", "authz", "finalize", "order"} {
			ca.On(fakeca.Rule{Endpoint: e, When: isAbout, Mutate: learn})
		}
		iss := issuerAt(ca)
		iss.HTTPClient = &http.Client{Transport: slowNet{ca.Client().Transport}}
		conf.Issuers, conf.DisableRenewalInfo = []Issuer{iss}, true
		return conf, nil
	}}
}

// atOtherCA has the names that hang at a CA of their own, of which an endpoint
// hangs for all.
func atOtherCA(endpoint string) hangs {
	h := atCA("newOrder")
	h.specs = func(conf Config, names []string) (specs []Spec) {
		ca := fakeca.New(fakeca.Options{BaseURL: "https://other-" + strings.ToLower(endpoint) + ".test"})
		ca.On(fakeca.Rule{Endpoint: endpoint, Hang: true})
		iss := issuerAt(ca)
		for _, name := range names {
			specs = append(specs, Spec{Names: []string{name}, Issuers: []Issuer{iss}})
		}
		return specs
	}
	return h
}

// inStorage has calls of an operation hang whose keys are about a name that hangs.
func inStorage(op string) hangs {
	return hangs{kind: "signer", conf: func(t *testing.T) (Config, func()) {
		conf, release := bySigner(nil).conf(t)
		s := newFaulty(storage.NewMemory())
		s.set(func(c call) fault {
			if c.op == op && isHanging(c.key) {
				return fault{delay: 1000 * day}
			}
			return fault{}
		})
		conf.Storage = s
		return conf, release
	}}
}

// hangingLocker gives no lease for a name that hangs.
type hangingLocker struct{ Locker }

func (l hangingLocker) Lock(ctx context.Context, name string) (Lease, error) {
	if isHanging(name) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return l.Locker.Lock(ctx, name)
}

// bySigner has an Issuer of the caller's, which takes a second.
func bySigner(hang func(ctx context.Context, end chan struct{}) error) hangs {
	return hangs{kind: "signer", conf: func(t *testing.T) (Config, func()) {
		iss, end := &aroundIssuer{fakeSigner: newFakeSigner(t)}, make(chan struct{})
		iss.issue = func(ctx context.Context, req IssueRequest, next func() (Issued, error)) (Issued, error) {
			if hang != nil && isHanging(req.Names[0]) {
				return Issued{}, hang(ctx, end)
			}
			if err := waitFor(ctx, time.Second); err != nil {
				return Issued{}, err
			}
			return next()
		}
		_, conf := newFake(t, fakeca.Options{})
		conf.Issuers, conf.DisableRenewalInfo, conf.DisableStapling = []Issuer{iss}, true, true
		return conf, sync.OnceFunc(func() { close(end) })
	}}
}

// inRenewalInfo has the CA never answer when a certificate that hangs is renewed.
func inRenewalInfo() hangs {
	h := bySigner(nil)
	conf := h.conf
	h.kind = "renewal info"
	h.conf = func(t *testing.T) (Config, func()) {
		c, release := conf(t)
		c.DisableRenewalInfo = false
		c.Issuers[0].(*aroundIssuer).inform = func(ctx context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
			if isHanging(leaf.DNSNames[0]) {
				<-ctx.Done()
				return RenewalInfo{}, context.Cause(ctx)
			}
			if err := waitFor(ctx, time.Second); err != nil {
				return RenewalInfo{}, err
			}
			return RenewalInfo{Start: leaf.NotAfter.Add(-30 * day), End: leaf.NotAfter.Add(-29 * day)}, nil
		}
		return c, release
	}
	h.done = func(s NameStatus) bool { return !s.WindowStart.IsZero() }
	return h
}

// slowResponder takes a second for an answer, and never answers for a certificate
// that hangs.
type slowResponder struct {
	ca  *fakeca.CA
	iss *stapledIssuer
}

func (s slowResponder) RoundTrip(r *http.Request) (*http.Response, error) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	req, err := ocsp.ParseRequest(raw)
	if err != nil {
		return nil, err
	}
	if s.iss.isHanging(req.SerialNumber.String()) {
		<-r.Context().Done()
		return nil, context.Cause(r.Context())
	}
	if err := waitFor(r.Context(), time.Second); err != nil {
		return nil, err
	}
	issuer, key := s.ca.Intermediate()
	now := time.Now().Truncate(time.Second)
	body, err := ocsp.CreateResponse(issuer, issuer, ocsp.Response{Status: ocsp.Good, SerialNumber: req.SerialNumber, ThisUpdate: now, NextUpdate: now.Add(7 * day)}, key)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/ocsp-response"}},
		Body: io.NopCloser(bytes.NewReader(body)), Request: r,
	}, nil
}

// stapledIssuer knows the serial numbers of the certificates that hang.
type stapledIssuer struct {
	*quickSigner

	mu      sync.Mutex // guards serials
	serials map[string]bool
}

func (s *stapledIssuer) isHanging(serial string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serials[serial]
}

func (s *stapledIssuer) Issue(ctx context.Context, req IssueRequest) (Issued, error) {
	issued, err := s.quickSigner.Issue(ctx, req)
	if err == nil && isHanging(req.Names[0]) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.serials[mustParse(issued.Chain).SerialNumber.String()] = true
	}
	return issued, err
}

func mustParse(chain []byte) *x509.Certificate {
	block, _ := pem.Decode(chain)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		panic(err)
	}
	return leaf
}

// inOCSP has a responder never answer for a certificate that hangs.
func inOCSP() hangs {
	return hangs{
		kind: "OCSP",
		conf: func(t *testing.T) (Config, func()) {
			ca, conf := newFake(t, fakeca.Options{})
			conf.Issuers = []Issuer{&stapledIssuer{quickSigner: &quickSigner{ca: ca, life: 90 * day, ocsp: "http://ocsp.test"}, serials: map[string]bool{}}}
			return conf, nil
		},
		responder: func(conf Config) http.RoundTripper {
			iss := conf.Issuers[0].(*stapledIssuer)
			return slowResponder{iss.ca, iss}
		},
		done: func(s NameStatus) bool { return !s.StapleNextUpdate.IsZero() },
	}
}

// took are times until all is done for all names but those that hang.
type took struct {
	first time.Duration // given at once with those that hang
	later time.Duration // given an hour later
}

// ofMany has so many names hang that all that may be in flight is, with nothing but
// certificates waited for.
func (h hangs) ofMany() hangs {
	h.many, h.done = true, nil
	return h
}

// run measures, with names that hang or without.
func (h hangs) run(t *testing.T, withHanging bool) (out took) {
	synctest.Test(t, func(t *testing.T) {
		conf, release := h.conf(t)
		m := start(t, conf)
		if release != nil {
			t.Cleanup(release)
		}
		if h.responder != nil {
			UseResponder(m, h.responder(conf))
		}
		if withHanging {
			h.begin(t, m, conf)
		}
		out.first = h.await(t, m, numbered(others, "first.example.com"))
		time.Sleep(time.Hour)
		out.later = h.await(t, m, numbered(lateOnes, "later.example.com"))
		for _, s := range m.Status() {
			if strings.Contains(s.Name, "hangs") && s.State == StateValid && h.done == nil && !h.many {
				t.Errorf("%s does not hang", s.Name)
			}
		}
	})
	return out
}

// begin has the names managed that hang.
func (h hangs) begin(t *testing.T, m *Manager, conf Config) {
	t.Helper()
	names := numbered(hanging, "hangs.example.org")
	if h.many {
		manage(t, m, numbered(manyHanging, "hangs.example.org")...)
		return
	}
	if h.specs == nil {
		if err := m.ManageAsync(names); err != nil {
			t.Fatal(err)
		}
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody waits
	if err := m.Manage(ctx, h.specs(conf, names)...); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// await has names managed and returns how long it takes until all is done.
func (h hangs) await(t *testing.T, m *Manager, names []string) time.Duration {
	t.Helper()
	began := time.Now()
	manage(t, m, names...)
	isLeft := map[string]bool{}
	for _, name := range names {
		isLeft[name] = h.done != nil
	}
	for ; len(isLeft) > 0; time.Sleep(100 * time.Millisecond) {
		for _, s := range m.Status() {
			if !isLeft[s.Name] || h.done(s) {
				delete(isLeft, s.Name)
			}
		}
		if time.Since(began) > day {
			t.Fatalf("after a day, %d names are not done", len(isLeft))
		}
	}
	return time.Since(began)
}

// Names that hang, at whatever step, cost the others no time that counts: at
// once, and when they have been tried again and again. (F5)
func TestNamesThatHangCostOthersNoTime(t *testing.T) {
	ways := map[string]hangs{
		"lease": {kind: "signer", conf: func(t *testing.T) (Config, func()) {
			conf, release := bySigner(nil).conf(t)
			conf.Locker = hangingLocker{conf.Storage.(Locker)}
			return conf, release
		}},
		"load": inStorage("load"), "store": inStorage("store"), "renewal info": inRenewalInfo(), "OCSP": inOCSP(),
		"renewal info of 1,000": inRenewalInfo().ofMany(), "OCSP of 1,000": inOCSP().ofMany(),
		"issuer":                          bySigner(func(ctx context.Context, _ chan struct{}) error { <-ctx.Done(); return ctx.Err() }),
		"issuer that ignores its context": bySigner(func(_ context.Context, end chan struct{}) error { <-end; return errors.New("at last") }),
	}
	for _, endpoint := range []string{"newOrder", "authz", "challenge", "finalize", "order", "cert"} {
		ways[endpoint] = atCA(endpoint)
	}
	for _, endpoint := range []string{"directory", "newNonce", "newAccount"} {
		ways[endpoint] = atOtherCA(endpoint)
	}
	if testing.Short() || raceEnabled { // all of them are another step of ci/test.sh
		maps.DeleteFunc(ways, func(name string, _ hangs) bool {
			return !slices.Contains([]string{"load", "newOrder", "issuer that ignores its context"}, name)
		})
	}
	times := map[string]took{} // without names that hang
	for _, name := range slices.Sorted(maps.Keys(ways)) {
		t.Run(name, func(t *testing.T) {
			h := ways[name]
			if h.many {
				h.kind += " of many"
			}
			if times[h.kind] == (took{}) {
				times[h.kind] = h.run(t, false)
			}
			without, with := times[h.kind], h.run(t, true)
			t.Logf("%v without, %v with %d names that hang", without, with, hanging)
			if with.first > without.first*3/2 || with.later > without.later*3/2 {
				t.Errorf("%v, but %v with %d names that hang", without, with, hanging)
			}
		})
	}
}

func (t took) String() string { return fmt.Sprintf("%v, %v an hour later", t.first, t.later) }
