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

// validationConfig is for tls-alpn-01 validation alone (RFC 8737 §3): whatever the
// server asks of its clients, a CA gets in, and gets nothing but the answer.
func (m *Manager) validationConfig() *tls.Config {
	return &tls.Config{
		GetCertificate: m.GetCertificate,
		NextProtos:     []string{alpnProto},
		MinVersion:     tls.VersionTLS12,
	}
}

// TLS sets srv up to serve the managed certificates and returns it; nil means a
// new server. What srv.TLSConfig says is kept: its GetCertificate and its
// Certificates answer for names that the Manager has no certificate for, its
// NextProtos are extended by tls-alpn-01, its GetConfigForClient is asked for
// all but validation handshakes, and a config from there that has no certificates
// gets the Manager's. HTTP/2 is offered unless srv has turned it off.
//
// Validation handshakes have a config of their own: ClientAuth, VerifyConnection
// and the like do not hold for them.
func (m *Manager) TLS(srv *http.Server) *http.Server {
	if srv == nil {
		srv = &http.Server{}
	}
	m.wiredTLS.Store(true)
	conf := &tls.Config{}
	if srv.TLSConfig != nil {
		conf = srv.TLSConfig.Clone()
	}
	if len(conf.NextProtos) == 0 {
		conf.NextProtos = protocolsOf(srv)
	}
	if !slices.Contains(conf.NextProtos, alpnProto) {
		conf.NextProtos = append(slices.Clone(conf.NextProtos), alpnProto)
	}
	if conf.MinVersion == 0 {
		conf.MinVersion = tls.VersionTLS12
	}
	// crypto/tls would take the caller's Certificates for clients that name no
	// server, without asking.
	certs := conf.Certificates
	conf.Certificates = nil
	conf.GetCertificate = m.before(conf.GetCertificate, certs)
	conf.GetConfigForClient = m.choose(conf.GetConfigForClient)
	srv.TLSConfig = conf
	return srv
}

// protocolsOf returns what srv speaks over TLS, as ALPN has it (RFC 7301).
func protocolsOf(srv *http.Server) []string {
	http1, http2 := true, srv.TLSNextProto == nil || srv.TLSNextProto["h2"] != nil
	if p := srv.Protocols; p != nil {
		http1, http2 = p.HTTP1(), p.HTTP2()
	}
	var list []string
	if http2 {
		list = append(list, "h2")
	}
	if http1 {
		list = append(list, "http/1.1")
	}
	return list
}

// before returns a GetCertificate that asks the Manager first, and the caller's
// for what it has no certificate for.
func (m *Manager) before(own func(*tls.ClientHelloInfo) (*tls.Certificate, error), certs []tls.Certificate) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := m.GetCertificate(hello)
		switch {
		case cert != nil || isValidation(hello):
			return cert, err
		case own != nil:
			if cert, err := own(hello); cert != nil || err != nil || len(certs) == 0 {
				return cert, err
			}
		}
		for i := range certs {
			if hello.SupportsCertificate(&certs[i]) == nil {
				return &certs[i], nil
			}
		}
		if len(certs) > 0 {
			return &certs[0], nil
		}
		return nil, err
	}
}

// choose returns a GetConfigForClient that asks the caller's for all but
// validation handshakes.
func (m *Manager) choose(own func(*tls.ClientHelloInfo) (*tls.Config, error)) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	validation := m.validationConfig()
	return func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		switch {
		case isValidation(hello):
			return validation, nil
		case own == nil:
			return nil, nil
		}
		conf, err := own(hello)
		if err != nil || conf == nil || len(conf.Certificates) > 0 || conf.GetCertificate != nil {
			return conf, err
		}
		conf = conf.Clone()
		conf.GetCertificate = m.GetCertificate
		return conf, nil
	}
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
