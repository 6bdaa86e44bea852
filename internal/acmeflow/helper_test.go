package acmeflow

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/fakeca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs f with a clock of its own; a goroutine that is left fails the test.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// fakeAccounts is an AccountStore in memory that several clients can share.
type fakeAccounts struct {
	lock chan struct{}

	mu     sync.Mutex // guards the fields below
	rec    *AccountRecord
	stores int
	err    error // of every call of Store
}

func newAccounts() *fakeAccounts { return &fakeAccounts{lock: make(chan struct{}, 1)} }

func (a *fakeAccounts) Load(context.Context) (AccountRecord, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rec == nil {
		return AccountRecord{}, fs.ErrNotExist
	}
	return *a.rec, nil
}

func (a *fakeAccounts) Store(_ context.Context, r AccountRecord) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return a.err
	}
	a.rec = &r
	a.stores++
	return nil
}

func (a *fakeAccounts) Lock(ctx context.Context) (context.Context, func(), error) {
	select {
	case a.lock <- struct{}{}:
		return ctx, func() { <-a.lock }, nil
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
}

func (a *fakeAccounts) record(t *testing.T) AccountRecord {
	t.Helper()
	r, err := a.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fakeSolver answers what is presented and nothing else.
type fakeSolver struct {
	mu         sync.Mutex // guards the fields below
	live       map[string]string
	presented  []Challenge
	cleaned    []Challenge
	present    error             // of every call of Present
	cleanedCtx []error           // the context's error at each CleanUp
	onPresent  func(c Challenge) // called without mu
	resumed    bool              // orders of earlier requests are gone on with; not guarded
}

func (s *fakeSolver) Present(_ context.Context, ch Challenge) error {
	s.mu.Lock()
	s.presented = append(s.presented, ch)
	err, hook := s.present, s.onPresent
	if err == nil {
		if s.live == nil {
			s.live = map[string]string{}
		}
		s.live[ch.Type+" "+ch.Identifier+" "+ch.Token] = ch.KeyAuthorization
	}
	s.mu.Unlock()
	if hook != nil {
		hook(ch)
	}
	return err
}

func (s *fakeSolver) CleanUp(ctx context.Context, ch Challenge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleaned = append(s.cleaned, ch)
	s.cleanedCtx = append(s.cleanedCtx, ctx.Err())
	delete(s.live, ch.Type+" "+ch.Identifier+" "+ch.Token)
	return nil
}

// validate is what a CA sees of the solver.
func (s *fakeSolver) validate(_ context.Context, ch fakeca.ChallengeInfo) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := s.live[ch.Type+" "+ch.Identifier.Value+" "+ch.Token]; got != ch.KeyAuthorization || got == "" {
		return fakeca.NewProblem("unauthorized", 403, "no answer for "+ch.Type)
	}
	return nil
}

func (s *fakeSolver) types() (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.presented {
		list = append(list, c.Type)
	}
	return list
}

// checkClean fails when something presented was not cleaned up on a live context: once,
// or, of an order that another process made, once more.
func (s *fakeSolver) checkClean(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if more := len(s.cleaned) - len(s.presented); len(s.live) != 0 || more != 0 && (more < 0 || !s.resumed) {
		t.Errorf("%d presented, %d cleaned up, %d still answered", len(s.presented), len(s.cleaned), len(s.live))
	}
	for _, err := range s.cleanedCtx {
		if err != nil {
			t.Errorf("cleaned up on a context that had ended: %v", err)
		}
	}
	s.presented, s.cleaned, s.cleanedCtx = nil, nil, nil
}

// logText keeps a debug log.
type logText struct {
	mu sync.Mutex // guards b
	b  strings.Builder
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// env is a CA with a client.
type env struct {
	ca       *fakeca.CA
	client   *Client
	accounts *fakeAccounts
	solver   *fakeSolver
	log      *logText
	key      crypto.Signer    // of the certificates
	server   *httptest.Server // nil: the CA is asked in memory

	mu    sync.Mutex // guards state, saves
	state []byte
	saves int
}

func newEnv(t *testing.T, o fakeca.Options) *env {
	t.Helper()
	e := &env{accounts: newAccounts(), solver: &fakeSolver{}, log: &logText{}}
	if o.Validate == nil {
		o.Validate = e.solver.validate
	}
	if len(o.Challenges) == 0 {
		o.Challenges = []string{"http-01", "tls-alpn-01", "dns-01"}
	}
	e.ca = fakeca.New(o)
	e.client = New(e.options())
	e.newKey(t)
	return e
}

func (e *env) options() Options {
	return Options{
		Directory:  e.ca.Directory(),
		HTTPClient: e.ca.Client(),
		UserAgent:  "certwright-test/1",
		Contact:    []string{"mailto:admin@example.com"},
		Accounts:   e.accounts,
		Logger:     slog.New(slog.NewTextHandler(e.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

// restart makes a new client over the same account store, as a new process does.
func (e *env) restart(change func(*Options)) {
	o := e.options()
	if change != nil {
		change(&o)
	}
	e.client = New(o)
}

func (e *env) request(t *testing.T, names ...string) *Request {
	t.Helper()
	state := e.saved()
	e.solver.resumed = e.solver.resumed || len(state) > 0
	return &Request{
		Names:   names,
		CSR:     csr(t, e.key, names...),
		Solvers: map[string]Solver{"http-01": e.solver, "tls-alpn-01": e.solver, "dns-01": e.solver},
		Prefer:  []string{"http-01", "tls-alpn-01", "dns-01"},
		State:   state,
		Save: func(_ context.Context, b []byte) error {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.state, e.saves = b, e.saves+1
			return nil
		},
	}
}

func (e *env) saved() []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state
}

func (e *env) issue(t *testing.T, names ...string) *Result {
	t.Helper()
	res, err := e.tryIssue(t, e.request(t, names...))
	if err != nil {
		t.Fatalf("Issue: %v", err)
	}
	e.check(t, res, names...)
	return res
}

// tryIssue does once what a caller does when an order is of no use any more.
func (e *env) tryIssue(t *testing.T, req *Request) (*Result, error) {
	t.Helper()
	res, err := e.client.Issue(t.Context(), req)
	if fe := asError(err); fe != nil && fe.Gone && fe.Again {
		e.newKey(t)
		req.CSR, req.State = csr(t, e.key, req.Names...), nil
		return e.client.Issue(t.Context(), req)
	}
	return res, err
}

func (e *env) newKey(t *testing.T) {
	t.Helper()
	var err error
	if e.key, err = certpem.GenerateKey(certpem.P256); err != nil {
		t.Fatal(err)
	}
	e.state = nil
}

// check verifies the chain as a client of the certificate would.
func (e *env) check(t *testing.T, res *Result, names ...string) *x509.Certificate {
	t.Helper()
	chain, err := certpem.ParseChain(res.ChainPEM)
	if err != nil {
		t.Fatal(err)
	}
	if err := certpem.Verify(chain, e.key.Public(), names); err != nil {
		t.Fatal(err)
	}
	inter := x509.NewCertPool()
	for _, c := range chain[1:] {
		inter.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: e.ca.Roots(), Intermediates: inter, CurrentTime: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if res.URL == "" || res.Account == "" || res.Directory != e.ca.Directory() {
		t.Errorf("result lacks a URL: %q %q %q", res.URL, res.Account, res.Directory)
	}
	e.solver.checkClean(t)
	return chain[0]
}

// fail issues and wants an *Error.
func (e *env) fail(t *testing.T, names ...string) *Error {
	t.Helper()
	return e.failRequest(t, e.request(t, names...))
}

func (e *env) failRequest(t *testing.T, req *Request) *Error {
	t.Helper()
	res, err := e.client.Issue(t.Context(), req)
	if err == nil {
		t.Fatalf("Issue succeeded: %v", res.URL)
	}
	var fe *Error
	if !errors.As(err, &fe) {
		t.Fatalf("Issue: %v is no *Error", err)
	}
	e.solver.checkClean(t)
	return fe
}

func (e *env) counts() map[string]int {
	out := map[string]int{}
	for _, r := range e.ca.Requests("") {
		out[r.Endpoint]++
	}
	return out
}

func (e *env) wantCount(t *testing.T, endpoint string, want int) {
	t.Helper()
	if got := e.ca.Count(endpoint); got != want {
		t.Errorf("%d requests to %s, want %d", got, endpoint, want)
	}
}

func csr(t *testing.T, key crypto.Signer, names ...string) []byte {
	t.Helper()
	tmpl := &x509.CertificateRequest{}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func problemType(e *Error) string {
	if e.Problem == nil {
		return ""
	}
	return strings.TrimPrefix(e.Problem.Type, problemPrefix)
}

// endpoints that an issue of a new account goes through, in order.
var issueEndpoints = []string{"directory", "newNonce", "newAccount", "newOrder", "authz", "challenge", "finalize", "order", "cert"}

// withOrderPoll makes the CA need one look at the order after finalize, as public CAs do.
func withOrderPoll(ca *fakeca.CA) {
	ca.On(fakeca.Rule{Endpoint: "finalize", When: nil, N: 0, Mutate: func(_ *fakeca.Request, m map[string]any) {
		if m["status"] == "valid" {
			m["status"] = "processing"
			delete(m, "certificate")
		}
	}})
}

func containsReplaces(payload []byte) bool { return strings.Contains(string(payload), `"replaces"`) }

func contextIn(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), d)
}

// errUnexpected is the failure of what must not be called.
var errUnexpected = errors.New("called without need")

func name(i int) string { return fmt.Sprintf("n%d.example.com", i) }
