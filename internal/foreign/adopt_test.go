package foreign

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/go-acme/lego/v5/certcrypto"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/acmetest"
	"github.com/certwright/certwright/adopt"
	"github.com/certwright/certwright/storage"
	"github.com/certwright/certwright/storage/plugin"
)

// names are what the clients get certificates for.
var names = []string{"example.com", "www.example.com"}

// TestAdoptFromRealClients runs each client against Pebble and moves to
// certwright: no order for what is there, and the same account for a renewal.
func TestAdoptFromRealClients(t *testing.T) {
	clients := []struct {
		name   string
		source func(dir string) adopt.Source // nil: autocert, which is told the CA
		run    func(ctx context.Context, ca CA, dir string) error
	}{
		{"certmagic", adopt.CertMagic, func(ctx context.Context, ca CA, dir string) error {
			return CertMagic(ctx, ca, dir, "admin@example.com", names...)
		}},
		{"autocert", nil, func(ctx context.Context, ca CA, dir string) error {
			return Autocert(ctx, ca, dir, "admin@example.com", names...)
		}},
		{"lego 4", adopt.Lego, func(ctx context.Context, ca CA, dir string) error {
			run, err := Lego(ctx, ca, "admin@example.com", certcrypto.EC256, names)
			if err != nil {
				return err
			}
			return run.WriteV4(dir)
		}},
		{"lego 5", adopt.Lego, func(ctx context.Context, ca CA, dir string) error {
			run, err := Lego(ctx, ca, "admin@example.com", certcrypto.EC384, names)
			if err != nil {
				return err
			}
			return run.WriteV5(dir)
		}},
		{"certbot", adopt.Certbot, func(ctx context.Context, ca CA, dir string) error {
			run, err := Lego(ctx, ca, "admin@example.com", certcrypto.RSA2048, names)
			if err != nil {
				return err
			}
			return run.WriteCertbot(dir, "")
		}},
	}
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			pebble := acmetest.StartWith(t, acmetest.Options{Records: map[string][]netip.Addr{
				"example.com":     {netip.MustParseAddr("127.0.0.1")},
				"www.example.com": {netip.MustParseAddr("127.0.0.1")},
			}})
			dir := t.TempDir()
			if err := c.run(ctx, CA{
				Directory: pebble.Directory(), Client: pebble.Client(), Roots: pebble.APIRoots(),
				HTTPPort: pebble.HTTPPort(), TLSPort: pebble.TLSPort(),
			}, dir); err != nil {
				t.Fatal(err)
			}
			source := adopt.Autocert(dir, pebble.Directory())
			if c.source != nil {
				source = c.source(dir)
			}
			moveTo(ctx, t, pebble, source)
		})
	}
}

// moveTo manages the names with certwright and looks at what that costs.
func moveTo(ctx context.Context, t *testing.T, pebble *acmetest.CA, src adopt.Source) {
	t.Helper()
	pebble.ResetCounts()
	m, err := certwright.New(certwright.Config{
		AgreeToTerms: true, Storage: storage.NewMemory(), Adopt: []adopt.Source{src},
		Issuers:  []certwright.Issuer{&certwright.ACME{Directory: pebble.Directory(), HTTPClient: pebble.Client()}},
		HTTPPort: pebble.HTTPPort(), TLSPort: pebble.TLSPort(), ListenHost: "127.0.0.1", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	if err := m.ManageSync(ctx, names); err != nil {
		t.Fatal(err)
	}
	if n := pebble.Orders(); n != 0 {
		t.Errorf("%d orders for what was there", n)
	}
	if err := m.Renew(ctx, names[0]); err != nil {
		t.Fatal(err)
	}
	if n := pebble.Orders(); n != 1 {
		t.Errorf("%d orders for a renewal", n)
	}
	if n := pebble.Requests()[acmetest.KindNewAccount]; n != 1 {
		t.Errorf("%d requests for an account; want the one that finds it", n)
	}
	for _, name := range names {
		cert, err := m.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
		if err != nil {
			t.Fatal(err)
		}
		if err := cert.Leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
}

// TestAdoptThroughThePlugin has certwright move into the very storage that
// CertMagic used.
func TestAdoptThroughThePlugin(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pebble := acmetest.StartWith(t, acmetest.Options{Records: map[string][]netip.Addr{
		"example.com":     {netip.MustParseAddr("127.0.0.1")},
		"www.example.com": {netip.MustParseAddr("127.0.0.1")},
	}})
	dir := filepath.Join(t.TempDir(), "store")
	if err := CertMagic(ctx, CA{
		Directory: pebble.Directory(), Client: pebble.Client(), Roots: pebble.APIRoots(),
		HTTPPort: pebble.HTTPPort(), TLSPort: pebble.TLSPort(),
	}, dir, "admin@example.com", names...); err != nil {
		t.Fatal(err)
	}
	moveTo(ctx, t, pebble, adopt.CertMagicOn(plugin.CertMagic(&certmagic.FileStorage{Path: dir}).Raw()))
}
