package foreign

import (
	"context"
	"crypto/tls"
	"fmt"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// Autocert has autocert get an ECDSA and an RSA certificate for each of names
// and store them in dir.
func Autocert(_ context.Context, ca CA, dir, email string, names ...string) error {
	m := &autocert.Manager{
		Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(dir), Email: email,
		HostPolicy: autocert.HostWhitelist(names...),
		Client:     &acme.Client{DirectoryURL: ca.Directory, HTTPClient: ca.Client},
	}
	stop, err := listenTLS(ca.TLSPort, m.TLSConfig())
	if err != nil {
		return err
	}
	defer stop()
	for _, name := range names {
		modern := &tls.ClientHelloInfo{
			ServerName: name, SupportedVersions: []uint16{tls.VersionTLS13},
			CipherSuites:     []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
			SupportedCurves:  []tls.CurveID{tls.CurveP256},
			SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
		}
		old := &tls.ClientHelloInfo{ServerName: name, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
		for _, hello := range []*tls.ClientHelloInfo{modern, old} {
			if _, err := m.GetCertificate(hello); err != nil {
				return fmt.Errorf("getting a certificate for %q: %w", name, err)
			}
		}
	}
	return nil
}
