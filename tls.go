package certwright

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
)

// TLSConfig returns a new config for a server: GetCertificate, HTTP/2,
// HTTP/1.1 and tls-alpn-01, TLS 1.2 and above, Go's own choice of curves and
// cipher suites. It may be changed before it is used. Validation handshakes get a
// config of their own, from its GetConfigForClient.
func (m *Manager) TLSConfig() *tls.Config {
	m.wiredTLS.Store(true)
	return &tls.Config{
		GetCertificate:     m.GetCertificate,
		GetConfigForClient: m.choose(nil, m.GetCertificate),
		NextProtos:         []string{"h2", "http/1.1", alpnProto},
		MinVersion:         tls.VersionTLS12,
	}
}

// validationConfig is for tls-alpn-01 validation alone (RFC 8737 §3): whatever the
// server asks of its clients, a CA gets in, and gets nothing but the answer.
func validationConfig(get getCertificate) *tls.Config {
	return &tls.Config{
		GetCertificate: get,
		NextProtos:     []string{alpnProto},
		MinVersion:     tls.VersionTLS12,

		SessionTicketsDisabled: true, // nothing of it holds for another handshake
	}
}

// TLS sets srv up to serve the managed certificates and returns it; nil means a
// new server. What srv.TLSConfig says is kept: its GetCertificate and its
// Certificates answer for names that the Manager has no certificate for, before
// Config.FallbackName does, its NextProtos are extended by tls-alpn-01, its
// GetConfigForClient is asked for all but validation handshakes, and a config
// from there that has no certificates gets those of the server. Its GetCertificate
// may answer validations too, of names of its own. HTTP/2 is offered
// unless srv has turned it off.
//
// Call ListenAndServeTLS("", ""): the certificate of files that are named there is
// served, by crypto/tls itself, to clients that send no server name, and to no
// others.
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
	conf.NextProtos = protocolsFor(srv, conf.NextProtos)
	if conf.MinVersion == 0 {
		conf.MinVersion = tls.VersionTLS12
	}
	// crypto/tls would take the caller's Certificates for clients that name no
	// server, without asking.
	certs := conf.Certificates
	conf.Certificates = nil
	conf.GetCertificate = m.before(conf.GetCertificate, certs)
	conf.GetConfigForClient = m.choose(conf.GetConfigForClient, conf.GetCertificate)
	srv.TLSConfig = conf
	return srv
}

// protocolsFor returns what a server speaks over TLS, as ALPN has it (RFC 7301):
// own, or what it would speak by itself, and tls-alpn-01. As in net/http, what was
// turned off is not offered.
func protocolsFor(srv *http.Server, own []string) []string {
	http1, http2 := true, srv.TLSNextProto == nil || srv.TLSNextProto["h2"] != nil
	if p := srv.Protocols; p != nil {
		http1, http2 = p.HTTP1(), p.HTTP2()
	}
	if srv.TLSNextProto["h2"] == nil && strings.Contains(","+os.Getenv("GODEBUG")+",", ",http2server=0,") {
		http2 = false
	}
	list := slices.Clone(own)
	if len(own) == 0 {
		list = []string{"h2", "http/1.1"}
	}
	n := len(list)
	list = slices.DeleteFunc(list, func(p string) bool { return p == "h2" && !http2 || p == "http/1.1" && !http1 })
	if len(list) < n { // the other is spoken in its place
		for p, speaks := range map[string]bool{"h2": http2, "http/1.1": http1} {
			if speaks && !slices.Contains(list, p) {
				list = append(list, p)
			}
		}
	}
	if !slices.Contains(list, alpnProto) {
		list = append(list, alpnProto)
	}
	return list
}

// getCertificate is crypto/tls's hook.
type getCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// before returns a hook that asks the Manager first, then the caller's hook and
// certificates for what it has none for, and FallbackName after them.
func (m *Manager) before(own getCertificate, certs []tls.Certificate) getCertificate {
	if own == nil && len(certs) == 0 {
		return m.GetCertificate
	}
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if isValidation(hello) {
			cert, err := m.GetCertificate(hello)
			if err != nil && own != nil { // another's, which may answer for its own names
				if other, _ := own(hello); answersValidation(other) {
					return other, nil
				}
			}
			return cert, err
		}
		q := query{hello: hello}
		cert, why := m.certificate(&q)
		if cert != nil {
			return cert, nil
		}
		var ownErr error
		if own != nil {
			if cert, ownErr = own(hello); cert != nil {
				return cert, nil
			}
		}
		for i := range certs {
			if hello.SupportsCertificate(&certs[i]) == nil {
				return &certs[i], nil
			}
		}
		cert, err := m.instead(&q, why)
		switch {
		case cert != nil:
			return cert, nil
		case ownErr != nil:
			return nil, ownErr
		case len(certs) > 0:
			return &certs[0], nil // as crypto/tls does
		}
		return nil, err
	}
}

// answersValidation reports whether a certificate is the answer to a tls-alpn-01
// validation (RFC 8737 §3).
func answersValidation(cert *tls.Certificate) bool {
	if cert == nil || len(cert.Certificate) == 0 {
		return false
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	return err == nil && slices.ContainsFunc(leaf.UnhandledCriticalExtensions, func(id asn1.ObjectIdentifier) bool {
		return id.String() == "1.3.6.1.5.5.7.1.31" // id-pe-acmeIdentifier
	})
}

// choose returns a GetConfigForClient that asks the caller's for all but
// validation handshakes. get is for configs from there that have no certificates.
func (m *Manager) choose(own func(*tls.ClientHelloInfo) (*tls.Config, error), get getCertificate) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	validation := validationConfig(get)
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
		conf.GetCertificate = get
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
		return nil, fmt.Errorf("listening on %q: %w", addr, listenError(err))
	}
	return tls.NewListener(ln, m.TLSConfig()), nil
}
