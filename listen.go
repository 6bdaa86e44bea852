package certwright

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/certwright/certwright/internal/acmeflow"
	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/internal/keyed"
)

// patience is how long the program is given to bind a port itself, once it has
// shown that it means to, before a listener takes it for a pending challenge.
const patience = 2 * time.Second

// newPorts returns what listens for validation requests where nobody else does.
func (m *Manager) newPorts() *challenge.Ports {
	return &challenge.Ports{
		Addr: func(challengeType string) (string, bool) {
			port := m.conf.HTTPPort
			if challengeType == challenge.TLSALPN01 {
				port = m.conf.TLSPort
			}
			return listenAddr(m.conf.ListenHost, port), port > 0
		},
		Patience: func(challengeType string) time.Duration {
			wired, serves := m.wiredHTTP.Load(), m.servesHTTP.Load()
			if challengeType == challenge.TLSALPN01 {
				wired, serves = m.wiredTLS.Load(), m.servesTLS.Load()
			}
			if serves || !wired && m.syncs.Load() > 0 {
				return 0 // it has bound its port, or waits for ManageSync or Renew first
			}
			return patience
		},
		Yield: m.yield,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !m.answer(w, r) {
				http.NotFound(w, r)
			}
		}),
		TLS: &tls.Config{
			GetCertificate: m.challengeCertificate,
			NextProtos:     []string{alpnProto},
			MinVersion:     tls.VersionTLS12,
		},
		Note: func(challengeType string, err error) {
			serves := m.servesHTTP.Load()
			if challengeType == challenge.TLSALPN01 {
				serves = m.servesTLS.Load()
			}
			m.validations.setUnbound(challengeType, err)
			tell := m.log.Warn
			if serves || errors.Is(err, syscall.EADDRINUSE) {
				tell = m.log.Debug
			}
			tell("not listening for a challenge; another listener must answer it", "challenge", challengeType, "err", err)
		},
		Go: m.spawn, Context: m.ctx,
	}
}

// yield returns for how long a challenge waits for a port that is in use: not at
// all where the program's own server has it, or one that forwards to that, which a
// request shows. Another Manager, which knows nothing of our challenges, lets go of
// it in seconds.
func (m *Manager) yield(ctx context.Context, challengeType, addr string) time.Duration {
	serves := &m.servesHTTP
	if challengeType == challenge.TLSALPN01 {
		serves = &m.servesTLS
	}
	if !serves.Load() {
		m.knock(ctx, challengeType, addr)
	}
	if serves.Load() {
		return 0
	}
	return 10 * time.Second
}

// knock makes a request to what listens on a port. Its answer is of no interest.
func (m *Manager) knock(ctx context.Context, challengeType, addr string) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	addr, err := challenge.Reachable(addr)
	if err != nil {
		return
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if challengeType == challenge.TLSALPN01 {
		// Nothing is sent over it, whoever it is.
		conf := &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}
		_ = tls.Client(conn, conf).HandshakeContext(ctx)
		return
	}
	if _, err := io.WriteString(conn, "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err == nil {
		_, _ = conn.Read(make([]byte, 1))
	}
}

// newEnv returns what the Manager gives to its ACME issuers.
func (m *Manager) newEnv() *issuerEnv {
	env := &issuerEnv{
		locker: m.conf.Locker, unlock: m.unlock, calls: &m.calls, log: m.log,
		email: m.conf.Email, agreeToTerms: m.conf.AgreeToTerms,
		hint: m.hint, records: m.records, accounts: m.sources.account,
	}
	env.solvers = map[string]acmeflow.Solver{
		challenge.HTTP01:    newOwnSolver(m),
		challenge.TLSALPN01: newOwnSolver(m),
	}
	return env
}

// ownSolver answers http-01 and tls-alpn-01 through the Manager's own handlers.
type ownSolver struct {
	m     *Manager
	turns keyed.Mutex // by identifier, for tls-alpn-01

	mu       sync.Mutex // guards releases
	releases map[string]func()
}

func newOwnSolver(m *Manager) *ownSolver {
	return &ownSolver{m: m, releases: map[string]func(){}}
}

func (s *ownSolver) Present(ctx context.Context, ch acmeflow.Challenge) error {
	if ch.Type == challenge.TLSALPN01 {
		// A handshake does not say which challenge it is for, so that two orders
		// for one name, such as those of two key types, take turns.
		done, err := s.turns.Lock(ctx, ch.Identifier)
		if err != nil {
			return fmt.Errorf("waiting for another challenge for %q: %w", ch.Identifier, err)
		}
		s.atCleanUp(ch, done)
	}
	if err := s.m.table.Present(ctx, tableChallenge(ch)); err != nil {
		return err
	}
	s.atCleanUp(ch, s.m.ports.Open(ctx, ch.Type))
	return nil
}

// cleanChallenges begins to remove, once in a while, the challenges that processes
// left that died. Where many die there need be none that lives until storage is
// cleaned.
func (m *Manager) cleanChallenges() {
	now := time.Now().Unix()
	last := m.challengesAt.Load()
	if now-last < int64(cleanFirst/time.Second) || !m.challengesAt.CompareAndSwap(last, now) {
		return
	}
	m.spawn(func() {
		err := m.calls.do("the removal of old challenges", listTimeout, func() error {
			_, err := m.table.Clean(m.ctx)
			return err
		})
		if err != nil && m.ctx.Err() == nil {
			m.log.Debug("challenges that were left could not be removed; it is tried again", "err", err)
		}
	})
}

// atCleanUp has release called before what was to be released for ch until now.
func (s *ownSolver) atCleanUp(ch acmeflow.Challenge, release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := ch.Identifier + " " + ch.Token
	before := s.releases[key]
	s.releases[key] = func() {
		release()
		if before != nil {
			before()
		}
	}
}

func (s *ownSolver) CleanUp(ctx context.Context, ch acmeflow.Challenge) error {
	s.mu.Lock()
	release := s.releases[ch.Identifier+" "+ch.Token]
	delete(s.releases, ch.Identifier+" "+ch.Token)
	s.mu.Unlock()
	defer s.m.cleanChallenges()
	if release != nil {
		defer release() // when the next one is presented, this one is gone
	}
	return s.m.table.CleanUp(ctx, tableChallenge(ch))
}

func tableChallenge(ch acmeflow.Challenge) challenge.Challenge {
	return challenge.Challenge{Type: ch.Type, Identifier: ch.Identifier, Token: ch.Token, KeyAuthorization: ch.KeyAuthorization}
}

// lastAsked remembers, in Unix seconds, when validation requests came in. bare is
// for handshakes that came through a tls.Config of the caller's own.
type lastAsked struct {
	http, tls, bare atomic.Int64

	mu      sync.Mutex // guards unbound
	unbound map[string]unbound
}

// unbound says why a port could not be listened on, and when.
type unbound struct {
	err error
	at  int64
}

func (l *lastAsked) setUnbound(challengeType string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unbound == nil {
		l.unbound = map[string]unbound{}
	}
	l.unbound[challengeType] = unbound{err, time.Now().Unix()}
}

// unboundFor returns why the port for a challenge type could not be listened on
// within the time of an attempt, nil when it could or was not tried.
func (l *lastAsked) unboundFor(challengeType string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if u := l.unbound[challengeType]; time.Now().Unix()-u.at <= 5*60 {
		return u.err
	}
	return nil
}

// asked notes that a validation request was answered here.
func (m *Manager) asked(challengeType string) {
	now := time.Now().Unix()
	if challengeType == challenge.TLSALPN01 {
		m.validations.tls.Store(now)
		return
	}
	m.validations.http.Store(now)
}

// hint adds to a failed challenge what is known here about the reason. Where the
// CA did not come as far as to ask, there is nothing to be said of ports.
func (m *Manager) hint(e *StepError) {
	text := ""
	switch {
	case e.Step == string(acmeflow.StepPresent), e.Step == string(acmeflow.StepWait):
	case unresolved(e.Problem):
		text = "the CA's resolver finds no address that leads here: check the spelling of the name, and its A and AAAA records"
	case e.Problem.is("caa", "rateLimited"):
	case e.Challenge == challenge.TLSALPN01:
		text = m.hintTLS()
	case e.Challenge == challenge.HTTP01 && !recent(&m.validations.http):
		text = m.unreached(challenge.HTTP01, "is Manager.HTTPHandler the outermost handler?")
	}
	if text != "" && e.Challenge != "" {
		e.addHint(text)
	}
}

// unresolved reports whether the CA has found no address. Not every CA says so by
// the type.
func unresolved(p *Problem) bool {
	return p.is("dns") || p != nil && slices.ContainsFunc([]string{"no such host", "could not resolve", "nxdomain"}, func(words string) bool {
		return strings.Contains(strings.ToLower(p.Detail), words)
	})
}

// hintTLS says why tls-alpn-01 may have failed. A server whose config lacks the
// protocol refuses the handshake before it asks for a certificate, or goes on
// without the protocol when it has none at all.
func (m *Manager) hintTLS() string {
	const question = `does the server's tls.Config have "acme-tls/1" in NextProtos? Manager.TLSConfig and Manager.TLS add it`
	switch wired := m.wiredTLS.Load(); {
	case recent(&m.validations.bare) && !wired:
		return question
	case recent(&m.validations.tls):
		return ""
	case wired:
		return m.unreached(challenge.TLSALPN01, "")
	case m.servesTLS.Load():
		return "no validation handshake reached this process: " + question
	}
	return m.unreached(challenge.TLSALPN01, question)
}

// unreached says that no validation request reached this process, and what may be
// wrong with the port; what else may be wrong is asked after it.
func (m *Manager) unreached(challengeType, question string) string {
	what, public, field, port := "request", 80, "Config.HTTPPort", m.conf.HTTPPort
	if challengeType == challenge.TLSALPN01 {
		what, public, field, port = "handshake", 443, "Config.TLSPort", m.conf.TLSPort
	}
	s := fmt.Sprintf("no validation %s reached this process", what)
	const leads = "does the name lead here by its A and AAAA records, is port"
	switch err := m.validations.unboundFor(challengeType); {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("%s, which may not listen on port %d: allow it to (on Linux by CAP_NET_BIND_SERVICE), or forward port %d to one above 1023 and set %s to that", s, port, public, field)
	case errors.Is(err, syscall.EADDRINUSE):
		s = fmt.Sprintf("%s; another server has port %d here: stop it, or forward port %d to another one and set %s to that; if it is this program's own,", s, port, public, field)
	case err != nil:
		return fmt.Sprintf("%s, which cannot listen there: %v", s, err)
	case port > 0:
		s = fmt.Sprintf("%s: %s %d of the name forwarded here, to port %d (%s), and", s, leads, public, port, field)
	default:
		s = fmt.Sprintf("%s: %s %d of the name forwarded here, and", s, leads, public)
	}
	if question == "" {
		return strings.TrimSuffix(strings.TrimSuffix(s, ", and"), "; if it is this program's own,") + "?"
	}
	return s + " " + question
}

// recent reports whether a validation request came in the last two minutes.
func recent(at *atomic.Int64) bool { return time.Now().Unix()-at.Load() <= 2*60 }
