package certcache

import "crypto/tls"

// supports reports whether a handshake can be made with a certificate, as crypto/tls
// judges it by what client and server can do, but for the name: that was matched
// already, and need not be the one that the client sent. It allocates a few bytes.
func (c *Cache) supports(hello *tls.ClientHelloInfo, at *candidate) bool {
	cert := c.certificate(at.entry, at.served)
	if cert == nil {
		return false
	}
	nameless := *hello
	nameless.ServerName = ""
	return nameless.SupportsCertificate(cert) == nil
}
