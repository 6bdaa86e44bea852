package certwright

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/acmeflow"
	"github.com/certwright/certwright/internal/certcache"
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
// [tls.Config]. For a name with a certificate in memory it asks nothing of disk
// or network; once the certificate is parsed, it takes no lock and allocates
// nothing. See Config.HotCertificates for when it is. Just after a start, a name
// whose certificate was not read yet has it read from storage, once.
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
	sni := hello.ServerName
	if sni == "" {
		return m.unnamed(hello)
	}
	adding := m.adding()
	cert, match := m.cache.Find(sni, hello)
	switch {
	case cert == nil:
	case match == certcache.Own:
		return cert, nil
	case hostname.IsLabel(firstLabel(sni)) && len(sni) <= hostname.MaxSNI: // the rest is that of a wildcard
		return cert, nil
	}
	switch form := hostname.FormOf(sni); {
	case form == hostname.OtherForm:
		return m.respelled(hello)
	case form == hostname.NoName: // though it may end as one with a wildcard does
		return m.instead(hello, certcache.None)
	case adding || match != certcache.None:
		if cert, match = m.loadAsked(hello, sni); cert != nil {
			return cert, nil
		}
	}
	return m.instead(hello, match)
}

func firstLabel(name string) string { return name[:strings.IndexByte(name, '.')] }

// respelled selects for a name that is not written as it is stored.
func (m *Manager) respelled(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	var buf [hostname.MaxSNI]byte
	name, form := hostname.AppendSNI(buf[:0], hello.ServerName)
	if form == hostname.NoName {
		return m.instead(hello, certcache.None)
	}
	adding := m.adding()
	cert, match := m.cache.FindBytes(name, hello)
	if cert == nil && (adding || match != certcache.None) {
		cert, match = m.loadAsked(hello, string(name))
	}
	if cert != nil {
		return cert, nil
	}
	return m.instead(hello, match)
}

// instead returns what is served in place of a name that has no certificate.
func (m *Manager) instead(hello *tls.ClientHelloInfo, match certcache.Match) (*tls.Certificate, error) {
	if cert := m.lookup(hello, m.conf.FallbackName); cert != nil {
		return cert, nil
	}
	if match != certcache.None {
		return nil, (*pendingError)(hello)
	}
	return nil, (*unknownError)(hello)
}

// unnamed selects for a client that sent no server name.
func (m *Manager) unnamed(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if addr, ok := localAddr(hello.Conn); ok {
		if cert := m.forAddress(hello, addr); cert != nil {
			return cert, nil
		}
	}
	if cert := m.lookup(hello, m.conf.DefaultName); cert != nil {
		return cert, nil
	}
	if cert := m.cache.SoleIP(hello); cert != nil { // behind NAT the local address is another one
		return cert, nil
	}
	if cert := m.cache.Sole(hello); cert != nil {
		return cert, nil
	}
	if cert := m.lookup(hello, m.conf.FallbackName); cert != nil {
		return cert, nil
	}
	return nil, fmt.Errorf("%w: the client named no server and there is more than one certificate; set Config.DefaultName", ErrNoCertificate)
}

// forAddress selects for the address that a client connected to.
func (m *Manager) forAddress(hello *tls.ClientHelloInfo, addr netip.Addr) *tls.Certificate {
	if cert := m.cache.LookupIP(addr, hello); cert != nil {
		return cert
	}
	var buf [64]byte
	name := addr.AppendTo(buf[:0])
	if _, match := m.cache.FindBytes(name, hello); match != certcache.None || m.adding() {
		return m.lookup(hello, string(name))
	}
	return nil
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

// unknownError and pendingError say why there is no certificate for a name. They
// are the hello itself, so that a stranger's handshake costs no memory.
type (
	unknownError tls.ClientHelloInfo
	pendingError tls.ClientHelloInfo
)

func (e *unknownError) Error() string {
	if _, form := hostname.AppendSNI(nil, e.ServerName); form == hostname.NoName {
		return ErrNoCertificate.Error() + ": the server name is not a DNS name"
	}
	return fmt.Sprintf("%v for %q: %v", ErrNoCertificate, e.ServerName, ErrNotManaged)
}

// Is reports whether the error is of that kind.
func (e *unknownError) Is(target error) bool {
	if target == ErrNotManaged {
		_, form := hostname.AppendSNI(nil, e.ServerName)
		return form != hostname.NoName
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
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no tls-alpn-01 challenge is pending for %q", ErrNoCertificate, name)
	}
	return cert, err
}
