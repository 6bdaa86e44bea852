package certwright

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/certwright/certwright/internal/acmeflow"
	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/internal/hostname"
)

// alpnProto is the protocol of tls-alpn-01 validation (RFC 8737 §6.2).
const alpnProto = "acme-tls/1"

// challengeCert makes the certificate that answers tls-alpn-01.
func challengeCert(identifier, keyAuthorization string) (*tls.Certificate, error) {
	return acmeflow.TLSALPNCertificate(identifier, keyAuthorization)
}

// GetCertificate returns the certificate for a handshake; it drops into any
// [tls.Config]. For a name with a certificate in memory it takes no lock, asks
// nothing of disk or network and allocates nothing.
//
// The name's own certificate goes before a wildcard's, a valid one before one
// that has expired, and of several for one name the first is taken that the
// client supports. A client that names no server gets the certificate for the
// address it connected to, else the one for Config.DefaultName, else the only
// one for an IP address, else the only one. A name without a certificate gets
// the one for Config.FallbackName; without that, the error satisfies
// errors.Is(err, ErrNoCertificate).
//
// The config needs "acme-tls/1" in its NextProtos for tls-alpn-01; see
// [Manager.TLSConfig].
func (m *Manager) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if !m.servesTLS.Load() {
		m.servesTLS.Store(true)
	}
	if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == alpnProto {
		if !m.wiredTLS.Load() {
			m.validations.bare.Store(time.Now().Unix())
		}
		return m.challengeCertificate(hello)
	}
	return m.certificate(hello)
}

// certificate selects from what is in memory.
func (m *Manager) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if hello.ServerName == "" {
		return m.unnamed(hello)
	}
	name, ok := hostname.FromSNI(hello.ServerName)
	if ok {
		if cert := m.cache.Lookup(name, hello); cert != nil {
			return cert, nil
		}
	}
	if m.conf.FallbackName != "" {
		if cert := m.cache.Lookup(m.conf.FallbackName, hello); cert != nil {
			return cert, nil
		}
	}
	return nil, m.miss(name)
}

// unnamed selects for a client that sent no server name.
func (m *Manager) unnamed(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if addr, ok := localAddr(hello.Conn); ok {
		if cert := m.cache.LookupIP(addr, hello); cert != nil {
			return cert, nil
		}
	}
	if m.conf.DefaultName != "" {
		if cert := m.cache.Lookup(m.conf.DefaultName, hello); cert != nil {
			return cert, nil
		}
	}
	if cert := m.cache.SoleIP(); cert != nil { // behind NAT the local address is another one
		return cert, nil
	}
	if cert := m.cache.Sole(); cert != nil {
		return cert, nil
	}
	if m.conf.FallbackName != "" {
		if cert := m.cache.Lookup(m.conf.FallbackName, hello); cert != nil {
			return cert, nil
		}
	}
	return nil, fmt.Errorf("%w: the client named no server and there is more than one certificate; set Config.DefaultName", ErrNoCertificate)
}

func localAddr(conn net.Conn) (netip.Addr, bool) {
	if conn == nil {
		return netip.Addr{}, false
	}
	tcp, ok := conn.LocalAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	return addr, addr.IsValid()
}

// miss says why there is no certificate for a name.
func (m *Manager) miss(name string) error {
	if name == "" {
		return fmt.Errorf("%w: the server name is not a DNS name", ErrNoCertificate)
	}
	m.mu.Lock()
	ids := m.byName[name]
	if len(ids) == 0 {
		ids = m.byName["*."+hostname.Parent(name)]
	}
	m.mu.Unlock()
	if len(ids) == 0 {
		return fmt.Errorf("%w for %q: %w", ErrNoCertificate, name, ErrNotManaged)
	}
	return fmt.Errorf("%w for %q yet; see Status", ErrNoCertificate, name)
}

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
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no tls-alpn-01 challenge is pending for %q", ErrNoCertificate, name)
	}
	return cert, err
}

// TLSConfig returns a new config for a server: GetCertificate, HTTP/2,
// HTTP/1.1 and tls-alpn-01, TLS 1.2 and above, Go's own choice of curves and
// cipher suites. It may be changed before it is used.
func (m *Manager) TLSConfig() *tls.Config {
	m.wiredTLS.Store(true)
	return &tls.Config{
		GetCertificate: m.GetCertificate,
		NextProtos:     []string{"h2", "http/1.1", alpnProto},
		MinVersion:     tls.VersionTLS12,
	}
}

// TLS sets srv up to serve the managed certificates and returns it; nil means a
// new server. What srv.TLSConfig says is kept: its GetCertificate and its
// Certificates answer for names that the Manager has no certificate for, its
// NextProtos are extended by tls-alpn-01, its GetConfigForClient is asked for
// all but validation handshakes.
func (m *Manager) TLS(srv *http.Server) *http.Server {
	if srv == nil {
		srv = &http.Server{}
	}
	if srv.TLSConfig == nil {
		srv.TLSConfig = m.TLSConfig()
		return srv
	}
	m.wiredTLS.Store(true)
	conf := srv.TLSConfig.Clone()
	if len(conf.NextProtos) == 0 {
		conf.NextProtos = []string{"h2", "http/1.1"}
	}
	if !slices.Contains(conf.NextProtos, alpnProto) {
		conf.NextProtos = append(slices.Clone(conf.NextProtos), alpnProto)
	}
	if conf.MinVersion == 0 {
		conf.MinVersion = tls.VersionTLS12
	}
	own, static := conf.GetCertificate, len(conf.Certificates) > 0
	conf.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := m.GetCertificate(hello)
		switch {
		case cert != nil:
			return cert, nil
		case own != nil:
			return own(hello)
		case static:
			return nil, nil // crypto/tls goes on with Certificates
		}
		return nil, err
	}
	if choose := conf.GetConfigForClient; choose != nil {
		validation := m.TLSConfig()
		conf.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == alpnProto {
				return validation, nil
			}
			return choose(hello)
		}
	}
	srv.TLSConfig = conf
	return srv
}
