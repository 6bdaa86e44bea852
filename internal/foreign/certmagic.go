package foreign

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// CertMagic has CertMagic get a certificate for each of names and store it in
// dir. The names whose key is to be RSA start with "rsa.". Wildcards are only
// good with a CA that looks at no challenge.
func CertMagic(ctx context.Context, ca CA, dir, email string, names ...string) error {
	var cache *certmagic.Cache
	configs := map[string]*certmagic.Config{}
	cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(c certmagic.Certificate) (*certmagic.Config, error) {
			return configs[kindOf(c.Names[0])], nil
		},
		Logger: zap.NewNop(),
	})
	defer cache.Stop()
	for _, kind := range []string{"", "rsa", "wildcard"} {
		c := certmagic.New(cache, certmagic.Config{
			Storage: &certmagic.FileStorage{Path: dir}, Logger: zap.NewNop(),
			OCSP: certmagic.OCSPConfig{DisableStapling: true},
		})
		issuer := certmagic.ACMEIssuer{
			CA: ca.Directory, Email: email, Agreed: true, TrustedRoots: ca.Roots, HTTPProxy: ca.Proxy,
			AltHTTPPort: ca.HTTPPort, AltTLSALPNPort: ca.TLSPort, ListenHost: "127.0.0.1", Logger: zap.NewNop(),
		}
		switch kind {
		case "rsa":
			c.KeySource = certmagic.StandardKeyGenerator{KeyType: certmagic.RSA2048}
		case "wildcard":
			issuer.DNS01Solver = idleSolver{}
		}
		c.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(c, issuer)}
		configs[kind] = c
	}
	for _, name := range names {
		if err := configs[kindOf(name)].ManageSync(ctx, []string{name}); err != nil {
			return fmt.Errorf("getting a certificate for %q: %w", name, err)
		}
	}
	return nil
}

func kindOf(name string) string {
	switch {
	case strings.HasPrefix(name, "rsa."):
		return "rsa"
	case strings.HasPrefix(name, "*."):
		return "wildcard"
	}
	return ""
}

// idleSolver solves nothing.
type idleSolver struct{}

func (idleSolver) Present(context.Context, acme.Challenge) error { return nil }
func (idleSolver) CleanUp(context.Context, acme.Challenge) error { return nil }

var _ acmez.Solver = idleSolver{}

// listenTLS accepts connections on the port of the tls-alpn-01 challenge until
// stop is called.
func listenTLS(port int, conf *tls.Config) (stop func(), err error) {
	l, err := tls.Listen("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(port)), conf)
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
	}()
	return func() { _ = l.Close(); <-done }, nil
}
