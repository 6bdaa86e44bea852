package certwright

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/certwright/certwright/internal/acmeflow"
	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/internal/hostname"
)

const (
	// alpnProto is the protocol of tls-alpn-01 validation (RFC 8737 §6.2).
	alpnProto = "acme-tls/1"

	// handshakePatience bounds how long a handshake waits: for storage while a
	// start has not come to its name, and for an issue that is in flight when what
	// there is has expired. mostWaiting bounds how many do.
	handshakePatience = 5 * time.Second
	mostWaiting       = 1000
)

// challengeCert makes the certificate that answers tls-alpn-01.
func challengeCert(identifier, keyAuthorization string) (*tls.Certificate, error) {
	return acmeflow.TLSALPNCertificate(identifier, keyAuthorization)
}

// GetCertificate returns the certificate for a handshake; it drops into any
// [tls.Config]. For a name with a valid certificate in memory it asks nothing of
// disk or network; once the certificate is parsed, it takes no lock and allocates
// nothing, but for a few bytes where a name has several key types, of which
// crypto/tls says which will do. See Config.HotCertificates for when it is. Just after a start, a name
// whose certificate was not read yet has it read from storage, once; and one whose
// certificate has expired is waited for while a new one is being issued. A
// handshake waits for five seconds at most in all, with a server name or without,
// and a thousand do at once; another gets what there is.
//
// The name's own certificate goes before a wildcard's, a valid one before one
// that has expired, and of several for one name the first is taken that the
// client supports, in the order of Config.KeyTypes. A client that names no
// server, or an address that has no certificate, gets the one for the address it
// connected to, else the one for Config.DefaultName, else the only one for an IP
// address, else the only one. A name without a certificate gets the one for
// Config.FallbackName; without that, the error satisfies
// errors.Is(err, ErrNoCertificate).
//
// The config needs "acme-tls/1" in its NextProtos for tls-alpn-01; see
// [Manager.TLSConfig].
func (m *Manager) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if isValidation(hello) {
		m.noteHandshake()
		if !m.wiredTLS.Load() {
			m.validations.bare.Store(time.Now().Unix())
		}
		return m.challengeCertificate(hello)
	}
	q := query{hello: hello}
	cert, why := m.certificate(&q)
	if cert == nil {
		return m.instead(&q, why)
	}
	return cert, nil
}

// query is an ordinary handshake that asks for a certificate.
type query struct {
	hello *tls.ClientHelloInfo
	until time.Time // it waits no longer, whatever for; zero: it has not waited yet
}

// noteHandshake notes that a server of the program's runs.
func (m *Manager) noteHandshake() {
	if !m.servesTLS.Load() {
		m.servesTLS.Store(true)
	}
}

// isValidation reports whether a handshake is a tls-alpn-01 validation (RFC 8737
// §3).
func isValidation(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == alpnProto
}

// miss says why there is no certificate of its own for a handshake.
type miss uint8

const (
	missUnknown miss = iota // the name is not managed
	missPending             // it has none yet
	missUnnamed             // the client named no server, and it cannot be told which it wants
)

// certificate selects for an ordinary handshake, before Config.FallbackName is
// thought of; why is only for a nil certificate.
func (m *Manager) certificate(q *query) (cert *tls.Certificate, why miss) {
	m.noteHandshake()
	sni := q.hello.ServerName
	if sni == "" {
		return m.unnamed(q), missUnnamed
	}
	var buf [hostname.MaxSNI]byte
	name, ok := hostname.AppendSNI(buf[:0], sni)
	if !ok {
		return nil, missUnknown
	}
	r := m.cache.FindBytes(name, q.hello)
	if r.Match != certcache.None && !r.Valid {
		r = m.wake(q, string(name))
	}
	switch {
	case r.Cert != nil:
		return r.Cert, 0
	case r.Match != certcache.None:
		return nil, missPending
	case isAddress(name):
		return m.unnamed(q), missUnnamed // which RFC 6066 §3 would have it be
	}
	return nil, missUnknown
}

// isAddress allocates nothing for what is none at first sight.
func isAddress(name []byte) bool {
	last := name[len(name)-1]
	return ('0' <= last && last <= '9' || bytes.IndexByte(name, ':') >= 0) && hostname.IsIP(string(name))
}

// lookup selects for a normalised name. There is nothing for the empty name.
func (m *Manager) lookup(q *query, name string) *tls.Certificate {
	if name == "" {
		return nil
	}
	r := m.cache.Find(name, q.hello)
	if r.Match != certcache.None && !r.Valid {
		r = m.wake(q, name)
	}
	return r.Cert
}

// wake has a name looked at that is managed and has nothing valid in memory: it
// waits until its certificate was read from storage, and when what there is has
// expired, while another is being issued. Who waits for the same name waits for
// the same work. It returns what there is then.
func (m *Manager) wake(q *query, name string) certcache.Result {
	defer m.waiting.Add(-1)
	if m.waiting.Add(1) > mostWaiting {
		return m.cache.Find(name, q.hello)
	}
	ctx := q.hello.Context()
	if ctx == nil { // the hello was made by hand
		ctx = m.ctx
	}
	if q.until.IsZero() {
		q.until = time.Now().Add(handshakePatience)
	}
	ctx, cancel := context.WithDeadline(ctx, q.until)
	defer cancel()
	for _, n := range []string{name, "*." + hostname.Parent(name)} {
		list := m.managedFor(n)
		w := newWait(len(list))
		for i, c := range list {
			m.change(c, func(*news) { m.waitLocked(c, w, i, needNotWait) })
		}
		if err := w.await(ctx, "waiting"); err != nil {
			m.log.Debug("a handshake has waited in vain", "name", n, "err", err)
		}
		if r := m.cache.Find(name, q.hello); r.Valid {
			return r
		}
	}
	return m.cache.Find(name, q.hello)
}

// needNotWait reports whether a handshake has nothing to wait for.
func needNotWait(c *managed, now time.Time) (error, bool) {
	switch {
	case c.usable(now.Unix()):
		return nil, true
	case c.know&isLoaded == 0:
		return nil, !c.busy.has(doLoad)
	}
	return nil, c.cur.b == nil || !c.busy.has(doObtain)
}

// instead returns what is served where there is no certificate.
func (m *Manager) instead(q *query, why miss) (*tls.Certificate, error) {
	if cert := m.lookup(q, m.conf.FallbackName); cert != nil {
		return cert, nil
	}
	switch {
	case why == missPending:
		return nil, (*pendingError)(q.hello)
	case why == missUnknown:
		return nil, (*unknownError)(q.hello)
	case m.cache.Len() == 0:
		return nil, fmt.Errorf("%w: no name is managed", ErrNoCertificate)
	}
	return nil, fmt.Errorf("%w: the client named no server and it cannot be told which one it wants; set Config.DefaultName", ErrNoCertificate)
}

// unnamed selects for a client that sent no server name, nil when it cannot be
// told. What is in memory goes before what has to be waited for.
func (m *Manager) unnamed(q *query) *tls.Certificate {
	addr, hasAddr := localAddr(q.hello.Conn)
	if hasAddr {
		if r := m.cache.FindIP(addr, q.hello); r.Valid {
			return r.Cert
		}
	}
	if name := m.conf.DefaultName; name != "" {
		if r := m.cache.Find(name, q.hello); r.Valid {
			return r.Cert
		}
	}
	if hasAddr {
		if cert := m.lookupAddr(q, addr); cert != nil {
			return cert
		}
	}
	if cert := m.lookup(q, m.conf.DefaultName); cert != nil {
		return cert
	}
	name, r := m.cache.SoleIP(q.hello) // behind NAT the local address is another one
	if r.Cert == nil {
		name, r = m.cache.Sole(q.hello)
	}
	switch {
	case r.Valid:
	case r.Cert != nil:
		r = m.wake(q, name)
	case m.cache.Len() <= len(keyTypes): // a start may not have come to the only one
		for _, c := range m.all() {
			if !c.Serving() {
				m.wake(q, c.Names[0])
			}
		}
		_, r = m.cache.Sole(q.hello)
	}
	return r.Cert
}

// lookupAddr is lookup for an address.
func (m *Manager) lookupAddr(q *query, addr netip.Addr) *tls.Certificate {
	if r := m.cache.FindIP(addr, q.hello); r.Match == certcache.None {
		return nil
	}
	return m.lookup(q, addr.String())
}

// localAddr returns the address that a client connected to, over TCP or QUIC.
func localAddr(conn net.Conn) (netip.Addr, bool) {
	if conn == nil {
		return netip.Addr{}, false
	}
	var at netip.AddrPort
	switch a := conn.LocalAddr().(type) {
	case nil:
		return netip.Addr{}, false
	case interface{ AddrPort() netip.AddrPort }:
		at = a.AddrPort()
	default:
		var err error
		if at, err = netip.ParseAddrPort(a.String()); err != nil {
			return netip.Addr{}, false
		}
	}
	addr := at.Addr().Unmap().WithZone("")
	return addr, addr.IsValid()
}

// unknownError and pendingError say why there is no certificate for a name. They
// are the hello itself, so that a stranger's handshake costs no memory.
type (
	unknownError tls.ClientHelloInfo
	pendingError tls.ClientHelloInfo
)

func (e *unknownError) Error() string {
	if _, ok := hostname.FromSNI(e.ServerName); !ok {
		return ErrNoCertificate.Error() + ": the server name is not a DNS name"
	}
	return fmt.Sprintf("%v for %q: the name is not managed", ErrNoCertificate, e.ServerName)
}

// Is reports whether the error is of that kind.
func (e *unknownError) Is(target error) bool {
	if target == ErrNotManaged {
		_, ok := hostname.FromSNI(e.ServerName)
		return ok
	}
	return target == ErrNoCertificate
}

func (e *pendingError) Error() string {
	return fmt.Sprintf("%v for %q yet; see Status", ErrNoCertificate, e.ServerName)
}

// Is reports whether the error is of that kind.
func (e *pendingError) Is(target error) bool { return target == ErrNoCertificate }

// challengeCertificate answers tls-alpn-01, for a name with a pending challenge
// only.
func (m *Manager) challengeCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name, ok := hostname.FromSNI(hello.ServerName)
	if !ok {
		return nil, fmt.Errorf("%w: validation without a server name", ErrNoCertificate)
	}
	if addr, ok := hostname.FromReverseName(name); ok { // RFC 8738 §6
		name = addr.String()
	}
	m.asked(challenge.TLSALPN01)
	ctx := hello.Context()
	if ctx == nil { // the hello was made by hand
		ctx = m.ctx
	}
	cert, err := m.table.Certificate(ctx, name)
	if isNotExist(err) {
		return nil, fmt.Errorf("%w: no tls-alpn-01 challenge is pending for %q", ErrNoCertificate, name)
	}
	return cert, err
}
