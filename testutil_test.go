package certwright

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

const day = 24 * time.Hour

// newFake returns a scripted CA and a configuration that uses it, with storage
// in memory and no listeners. The CA's host follows from the test's name, so
// that no two tests share what clients keep by directory URL.
func newFake(t testing.TB, opt fakeca.Options) (*fakeca.CA, Config) {
	t.Helper()
	if opt.BaseURL == "" {
		opt.BaseURL = "https://" + testHost(t, "ca")
	}
	ca := fakeca.New(opt)
	return ca, Config{
		AgreeToTerms: true, Issuers: []Issuer{issuerAt(ca)}, Storage: storage.NewMemory(),
		Logger: slog.New(slog.DiscardHandler), HTTPPort: -1, TLSPort: -1,
	}
}

// issuerAt returns an issuer that asks ca.
func issuerAt(ca *fakeca.CA) *ACME {
	return &ACME{Directory: ca.Directory(), HTTPClient: ca.Client()}
}

// testHost makes a host name of the test's name.
func testHost(t testing.TB, first string) string {
	host := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(t.Name()))
	return first + "." + strings.Trim(host, "-") + ".test"
}

// start returns a Manager that is closed at the end of the test.
func start(t testing.TB, conf Config) *Manager {
	t.Helper()
	m, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeManager(t, m) })
	return m
}

func closeManager(t testing.TB, m *Manager) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := m.Close(ctx); err != nil {
		t.Error(err)
	}
}

// manage has names managed and fails the test when one gets no certificate.
func manage(t testing.TB, m *Manager, names ...string) {
	t.Helper()
	if err := m.ManageSync(t.Context(), names); err != nil {
		t.Fatal(err)
	}
}

// leafOf returns the leaf that a handshake for name gets, nil when it fails.
func leafOf(m *Manager, name string) *x509.Certificate {
	cert, err := m.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
	if err != nil {
		return nil
	}
	return cert.Leaf
}

// mustLeaf is leafOf for a name that has to be served.
func mustLeaf(t testing.TB, m *Manager, name string) *x509.Certificate {
	t.Helper()
	leaf := leafOf(m, name)
	if leaf == nil {
		t.Fatalf("no certificate is served for %q", name)
	}
	return leaf
}

// statusFor returns the status of the certificate whose first name is name.
func statusFor(t testing.TB, m *Manager, name string) NameStatus {
	t.Helper()
	for _, s := range m.Status() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no status for %q", name)
	return NameStatus{}
}

// eventLog keeps events.
type eventLog struct {
	mu   sync.Mutex // guards list
	list []Event
}

func (l *eventLog) add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, e)
}

// read adds the events of a channel until it is closed.
func (l *eventLog) read(ch <-chan Event) {
	for e := range ch {
		l.add(e)
	}
}

// kinds returns the kinds of the events for name, in their order; "" means all.
func (l *eventLog) kinds(name string) []EventKind {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []EventKind
	for _, e := range l.list {
		if name == "" || e.Name == name {
			out = append(out, e.Kind)
		}
	}
	return out
}

func (l *eventLog) count(kind EventKind) int {
	n := 0
	for _, k := range l.kinds("") {
		if k == kind {
			n++
		}
	}
	return n
}

// isPair reports whether b has the key of its leaf.
func isPair(b *bundle) bool {
	cert, err := b.Certificate()
	if err != nil {
		return false
	}
	key, ok := cert.PrivateKey.(crypto.Signer)
	return ok && b.hasKey(key)
}

// parsed returns the leaf of b.
func parsed(t testing.TB, b *bundle) *x509.Certificate {
	t.Helper()
	leaf, err := b.Parse()
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// openDir opens a folder that is closed at the end of the test.
func openDir(t *testing.T, dir string) *storage.Dir {
	t.Helper()
	d, err := storage.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}
