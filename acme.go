package certwright

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/acmeflow"
	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/internal/hostname"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/storage"
)

// ACME is an [Issuer] for any CA that speaks ACME (RFC 8555). Its zero value
// asks Let's Encrypt. A Manager keeps its own copy of what an ACME says; one
// ACME may serve several Managers.
type ACME struct {
	// Directory is the CA's directory URL. Empty means LetsEncrypt.
	Directory string

	// Email and AgreeToTerms override those in Config when they are set.
	Email        string
	AgreeToTerms bool

	// Account tells apart two accounts at one CA, such as one of each customer:
	// an ACME with another Account has an account of its own. It consists of
	// letters, digits, ".", "-" and "_". Empty: the CA's only account, or one an
	// EAB key ID.
	Account string

	// EAB binds the account to one that you have with the CA outside of ACME.
	// nil: none.
	EAB *EAB

	// HTTPClient makes the requests to the CA. nil means one of the Manager's
	// own, with sensible time-outs and the proxy of the environment.
	HTTPClient *http.Client

	// RootCAs are the roots that the CA's own server is verified with; a CA
	// inside a company often has its own. nil means the system's. It must be nil
	// when HTTPClient is set.
	RootCAs *x509.CertPool

	// DisableHTTP01 and DisableTLSALPN01 turn off a challenge type.
	DisableHTTP01, DisableTLSALPN01 bool

	// Solvers solve challenges by type: "dns-01", "dns-account-01",
	// "dns-persist-01" and what else the CA knows. One for "http-01" or
	// "tls-alpn-01" replaces the Manager's own. A *dnsprovider.Solver (package
	// dnsprovider) solves the DNS types with any libdns provider. A DNS type that
	// there is a Solver for is tried before the Manager's own types, for all names.
	Solvers map[string]Solver

	// Timeout bounds one attempt to issue a certificate, however long it is. 0
	// means 5 minutes.
	Timeout time.Duration

	// OrderLimit bounds how many orders are made in a time, by this Manager. An
	// order counts when the issuer is called: not while its name waits, and not
	// when another instance has been faster. Who has to wait goes in the order of
	// need: what a call or a handshake waits for, what was revoked, then what ends
	// first, where a first certificate goes behind what ends within a day. Its zero
	// value is no limit. A name that has to wait blocks no other.
	OrderLimit OrderLimit
}

// EAB is an external account binding (RFC 8555 §7.3.4).
type EAB struct {
	KeyID  string
	MACKey string // base64url, padded or not; a secret
}

// OrderLimit allows Orders orders within Per.
type OrderLimit struct {
	Orders int
	Per    time.Duration
}

// directory returns the directory URL with its default.
func (a *ACME) directory() string {
	if a.Directory == "" {
		return LetsEncrypt
	}
	return a.Directory
}

// String returns the key ID only: the MAC key is a secret.
func (e EAB) String() string { return fmt.Sprintf("EAB %q", e.KeyID) }

// GoString is like String.
func (e EAB) GoString() string { return e.String() }

// Issue makes an *ACME an [Issuer] and always fails: a Manager calls Issue of its
// own bound copy, which has storage, challenges and an account. An Issuer of
// yours that embeds or calls an *ACME is therefore refused its certificates; put
// the *ACME itself into Config.Issuers or Spec.Issuers.
func (a *ACME) Issue(context.Context, IssueRequest) (Issued, error) {
	return Issued{}, fmt.Errorf("issuing from %s: an *ACME issues only for a Manager that has it in Config.Issuers or Spec.Issuers", bareURL(a.directory()))
}

// issuerEnv is what a Manager gives to its ACME issuers.
type issuerEnv struct {
	records      *records.Records
	locker       Locker
	unlock       func(ctx context.Context, lease Lease)
	calls        *calls
	log          *slog.Logger
	email        string
	agreeToTerms bool
	solvers      map[string]acmeflow.Solver // the Manager's own
	hint         func(*StepError)           // adds what the Manager knows about a failed challenge

	// accounts finds an account at a CA that another program stored; nil, or a
	// nil result, means that there is none.
	accounts func(ctx context.Context, ca, email, eabKeyID string) (*acmeflow.AccountRecord, error)
}

// acmeIssuer is an ACME bound to a Manager.
type acmeIssuer struct {
	conf    ACME
	id      string
	env     *issuerEnv
	flow    *acmeflow.Client
	solvers map[string]acmeflow.Solver
}

func (a *ACME) bind(env *issuerEnv) (*acmeIssuer, error) {
	b := &acmeIssuer{conf: *a, id: a.ID(), env: env}
	if b.conf.Email == "" {
		b.conf.Email = env.email
	}
	if err := b.conf.validate(env.agreeToTerms); err != nil {
		return nil, err
	}
	b.conf.Timeout = cmp.Or(b.conf.Timeout, 5*time.Minute)
	b.solvers = map[string]acmeflow.Solver{}
	if s := env.solvers[challenge.HTTP01]; s != nil && !a.DisableHTTP01 {
		b.solvers[challenge.HTTP01] = s
	}
	if s := env.solvers[challenge.TLSALPN01]; s != nil && !a.DisableTLSALPN01 {
		b.solvers[challenge.TLSALPN01] = s
	}
	for t, s := range b.solvers {
		b.solvers[t] = ownBound{s, env.calls}
	}
	b.conf.Solvers = maps.Clone(a.Solvers)
	for t, s := range b.conf.Solvers {
		if isNil(s) {
			return nil, configErrorf("ACME.Solvers", "the one for %q is nil", t)
		}
		if err := checkSolver(t, s, nil); err != nil {
			return nil, err
		}
		b.solvers[t] = newCallerSolver(s, b.id)
	}
	if len(b.solvers) == 0 {
		return nil, configErrorf("ACME.Solvers", "no challenge type is left: http-01 and tls-alpn-01 are disabled and there is no Solver")
	}
	opts := acmeflow.Options{
		Directory:  a.directory(),
		HTTPClient: a.HTTPClient,
		RootCAs:    a.RootCAs,
		UserAgent:  userAgent(),
		Accounts:   &accountStore{env: env, id: b.id, conf: &b.conf},
		Logger:     env.log.With("issuer", b.id),
	}
	if b.conf.Email != "" {
		opts.Contact = []string{"mailto:" + b.conf.Email}
	}
	if a.EAB != nil {
		opts.EAB = &acmeflow.EAB{KeyID: a.EAB.KeyID, MACKey: a.EAB.MACKey}
	}
	b.flow = acmeflow.New(opts)
	return b, nil
}

func (a *ACME) validate(agreed bool) error {
	u, err := url.Parse(a.directory())
	switch {
	case err != nil || u.Host == "":
		return configErrorf("ACME.Directory", "is not a URL; a directory URL looks like %s", LetsEncrypt)
	case u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname())):
		return configErrorf("ACME.Directory", "must start with https://, is %q", bareURL(a.directory()))
	case !agreed && !a.AgreeToTerms:
		return configErrorf("Config.AgreeToTerms", "must be true: read the terms of service of the CA at %s and agree to them", bareURL(a.directory()))
	case strings.ContainsFunc(a.Account, func(r rune) bool { return !isLabelRune(r) }):
		return configErrorf("ACME.Account", "consists of letters, digits, \".\", \"-\" and \"_\", is %q", a.Account)
	case a.RootCAs != nil && a.HTTPClient != nil:
		return configErrorf("ACME.RootCAs", "must be nil when HTTPClient is set: set RootCAs in the client's own transport")
	}
	if err := checkEmail("ACME.Email", a.Email); err != nil {
		return err
	}
	if a.EAB != nil {
		if a.EAB.KeyID == "" {
			return configErrorf("ACME.EAB.KeyID", "is empty")
		}
		if _, err := acmeflow.ParseMACKey(a.EAB.MACKey); err != nil {
			return &ConfigError{Field: "ACME.EAB.MACKey", Err: err}
		}
	}
	if a.OrderLimit.Orders < 0 || a.OrderLimit.Per < 0 || (a.OrderLimit.Orders > 0) != (a.OrderLimit.Per > 0) {
		return configErrorf("ACME.OrderLimit", "needs both Orders and Per above zero, or neither")
	}
	if a.Timeout < 0 {
		return configErrorf("ACME.Timeout", "must not be negative, is %v", a.Timeout)
	}
	return nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func (b *acmeIssuer) ID() string { return b.id }

func (b *acmeIssuer) CA() string { return b.conf.CA() }

// close closes idle connections, unless they are the caller's.
func (b *acmeIssuer) close() { b.flow.Close() }

// check says before any request to the CA what it could not issue.
func (b *acmeIssuer) check(names []string, profile string) error {
	public := b.conf.directory() == LetsEncrypt || b.conf.directory() == LetsEncryptStaging
	for i, n := range names {
		field := fmt.Sprintf("Spec.Names[%d]", i)
		if hostname.IsWildcard(n) && !b.hasDNS() {
			return configErrorf(field, "the wildcard %q needs a dns-01 solver: set ACME.Solvers[\"dns-01\"]", n)
		}
		if ce := b.checkSolvers(n); ce != nil {
			return &ConfigError{Field: field, Err: fmt.Errorf("no challenge can be solved for %q: %s: %w", n, ce.Field, ce.Err)}
		}
		if public && !hostname.IsPublic(n) {
			return configErrorf(field, "%q is not a public name: %s issues no certificate for it", n, b.id)
		}
		if public && hostname.IsIP(n) && profile != "shortlived" {
			return configErrorf(field, "%s issues certificates for IP addresses such as %q only with the profile \"shortlived\": set Profile", b.id, n)
		}
	}
	return nil
}

// checkSolvers says why none of the Solvers can solve a challenge for a name.
func (b *acmeIssuer) checkSolvers(name string) (err *ConfigError) {
	for t := range b.solvers {
		if hostname.IsWildcard(name) && !strings.HasPrefix(t, "dns-") {
			continue
		}
		s := b.conf.Solvers[t]
		if s == nil {
			return nil
		}
		e := checkSolver(t, s, []string{name})
		if e == nil {
			return nil
		}
		if err == nil || t == dns01 {
			err = e
		}
	}
	return err
}

func (b *acmeIssuer) hasDNS() bool {
	for t := range b.solvers {
		if strings.HasPrefix(t, "dns-") {
			return true
		}
	}
	return false
}

// acmeData is what is kept with a certificate from an ACME CA.
type acmeData struct {
	Directory string              `json:"directory"`
	Account   string              `json:"account"`
	URL       string              `json:"url"`
	Failed    map[string][]string `json:"failed_challenges,omitempty"` // types by name
}

// preferred are the challenge types in the order in which they are tried. Who has
// set up a Solver for DNS may have nothing that answers on the ports.
var preferred = []string{dns01, dnsAccount01, dnsPersist01, challenge.TLSALPN01, challenge.HTTP01}

// failedKey is the context's key of the names, a map[string]bool, of which
// validations have failed lately.
type failedKey struct{}

// Issue runs one attempt at the CA.
func (b *acmeIssuer) Issue(ctx context.Context, req IssueRequest) (Issued, error) {
	attempt, cancel := context.WithTimeoutCause(ctx, b.conf.Timeout, fmt.Errorf("no certificate within %v (ACME.Timeout)", b.conf.Timeout))
	defer cancel()
	var before acmeData
	if json.Unmarshal(req.ReplacesData, &before) != nil {
		before = acmeData{}
	}
	flow := &acmeflow.Request{
		Names: req.Names, CSR: req.CSR, Profile: req.Profile, NotAfter: req.NotAfter,
		Solvers: b.solvers, Prefer: preferred, Failed: before.Failed, State: req.State,
		Progress: req.Progress, Sleep: req.Sleep,
	}
	flow.Once, _ = ctx.Value(failedKey{}).(map[string]bool)
	if req.Save != nil {
		// What an attempt has learned is kept also when its time is over.
		flow.Save = func(_ context.Context, b []byte) error { return req.Save(ctx, b) }
	}
	if before.Directory == b.conf.directory() {
		flow.Replaces, flow.ReplacesAccount = req.Replaces, before.Account
	}
	res, err := b.flow.Issue(attempt, flow)
	if err != nil {
		return Issued{}, b.stepError(err)
	}
	data, err := json.Marshal(acmeData{Directory: res.Directory, Account: res.Account, URL: res.URL, Failed: res.Failed})
	if err != nil {
		return Issued{}, fmt.Errorf("encoding the issuer's data: %w", err)
	}
	return Issued{Chain: res.ChainPEM, Data: data}, nil
}

// stepError turns an error of the flow into one of this package.
func (b *acmeIssuer) stepError(err error) error {
	var e *acmeflow.Error
	if !errors.As(err, &e) {
		return &StepError{Issuer: b.id, Step: "issue", Err: err}
	}
	out := b.publicError(e)
	out.failed, out.gone, out.again = e.Validations, e.Gone, e.Again
	for _, before := range e.Earlier {
		out.Earlier = append(out.Earlier, b.publicError(before))
	}
	return out
}

func (b *acmeIssuer) publicError(e *acmeflow.Error) *StepError {
	out := &StepError{
		Issuer: b.id, Step: string(e.Step), Name: e.Identifier, Challenge: e.Challenge, URL: e.URL,
		Problem: publicProblem(e.Problem), Err: e.Err, retryAfter: e.RetryAfter,
	}
	if cure := b.cure(out); cure != "" {
		out.addHint(cure)
	}
	if b.env.hint != nil {
		b.env.hint(out)
	}
	return out
}

// cure says what to do about what the CA's server shows or says of the account,
// empty when that is not known.
func (b *acmeIssuer) cure(e *StepError) string {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](e.Err)
	switch {
	case unknown && b.conf.HTTPClient != nil:
		return "when the CA has a root of its own, set RootCAs in the transport of ACME.HTTPClient"
	case unknown:
		return "when the CA has a root of its own, set ACME.RootCAs, of an *ACME in Config.Issuers"
	case e.Problem.is("externalAccountRequired"):
		return "set ACME.EAB to the key ID and the MAC key that the CA gives to its customers"
	case e.Problem.is("invalidContact", "unsupportedContact"):
		return "set Config.Email, or ACME.Email, to another address, or leave it empty"
	case e.Problem.is("userActionRequired"):
		return "do what the CA says there, such as to agree to new terms"
	case e.Step == "order" && e.Challenge == "" && e.Problem.is("unauthorized"):
		return fmt.Sprintf("if the account was deactivated, delete its record v1/accounts/%s from storage and start again: another one is made then", b.id)
	}
	return ""
}

func publicProblem(p *acmeflow.Problem) *Problem {
	if p == nil {
		return nil
	}
	out := &Problem{Type: p.Type, Title: p.Title, Status: p.Status, Detail: p.Detail, Instance: p.Instance}
	for _, s := range p.Subproblems {
		out.Subproblems = append(out.Subproblems, Subproblem{Problem: *publicProblem(&s), Name: s.Identifier.Value})
	}
	return out
}

// RenewalInfo implements [RenewalInformer].
func (b *acmeIssuer) RenewalInfo(ctx context.Context, leaf *x509.Certificate) (RenewalInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	info, err := b.flow.RenewalInfo(ctx, leaf)
	if errors.Is(err, acmeflow.ErrNoRenewalInfo) {
		return RenewalInfo{}, ErrNoRenewalInfo
	}
	if err != nil {
		return RenewalInfo{RetryAfter: info.RetryAfter}, b.stepError(err)
	}
	return RenewalInfo(info), nil
}

// unlock releases a lease although ctx may have ended. What goes wrong with it is
// told, and costs what was done under the lease nothing.
func (m *Manager) unlock(ctx context.Context, lease Lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
	defer cancel()
	err := m.calls.do("the release of a lease", unlockPatience, func() error {
		if err := lease.Unlock(ctx); !errors.Is(err, storage.ErrLeaseLost) {
			return err
		}
		return nil
	})
	if err != nil {
		m.log.WarnContext(ctx, "releasing a lease", "err", err)
	}
}

const (
	unlockTimeout  = 5 * time.Second  // what a release is given
	unlockPatience = 10 * time.Second // for how long it is waited for
)

// userAgent names the library and its version (RFC 8555 §6.1).
func userAgent() string {
	version := "devel"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append(info.Deps, &info.Main) {
			if m.Path == "github.com/certwright/certwright" && m.Version != "" {
				version = m.Version
			}
		}
	}
	return "certwright/" + strings.Trim(version, "()")
}
