package certwright

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
)

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

// Listen listens on a TCP address, such as ":443", and returns a listener for
// servers that take connections and know nothing of TLS: those that it accepts
// are TLS connections as TLSConfig says, with a handshake at the first read or
// write. network is "tcp", "tcp4" or "tcp6". The listener is the caller's:
// closing it ends nothing else, and Close of the Manager leaves it open.
func (m *Manager) Listen(network, addr string) (net.Listener, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, fmt.Errorf("listening on %q: unknown network %q; use tcp, tcp4 or tcp6", addr, network)
	}
	if m.ctx.Err() != nil {
		return nil, fmt.Errorf("listening on %q: %w", addr, ErrClosed)
	}
	var conf net.ListenConfig
	ln, err := conf.Listen(m.ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("listening on %q: %w", addr, err)
	}
	return tls.NewListener(ln, m.TLSConfig()), nil
}
