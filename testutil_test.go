package certwright_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/internal/records"
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
	return started(t, New, conf)
}

// startAlone is start for a test of long times in which no other Manager uses the
// storage meanwhile.
func startAlone(t testing.TB, conf Config) *Manager {
	t.Helper()
	return started(t, NewAlone, conf)
}

func started(t testing.TB, new func(Config) (*Manager, error), conf Config) *Manager {
	t.Helper()
	m, err := new(conf)
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

// Where a Manager keeps its records, and what is common to all of them. What is
// in them is package records' to test.
const (
	keyCerts      = "v1/certs"
	keyOrders     = "v1/orders"
	keyHolds      = "v1/holds"
	keyAccounts   = "v1/accounts"
	keyStaples    = "v1/staples"
	keyInfos      = "v1/renewal-info"
	keyChanges    = "v1/changes"
	keyChallenges = "v1/challenges"
	keyCleaned    = "v1/cleaned"

	alpnProto = "acme-tls/1" // RFC 8737 §6.2
)

// certKey returns where the certificate for names with a P-256 key is stored.
func certKey(names ...string) string { return keyCerts + "/" + records.ID(names, P256) + ".pem" }

// recordsOn returns the records on a storage, as a Manager would see them.
func recordsOn(s Storage) *records.Records {
	return records.New(s, records.Options{Damage: func(err error) bool { return errors.Is(err, storage.ErrDamaged) }})
}

// storedFor returns what is stored for names with a P-256 key.
func storedFor(t testing.TB, s Storage, names ...string) records.Stored {
	t.Helper()
	b, err := recordsOn(s).LoadBundle(context.Background(), records.ID(names, P256), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// isPair reports whether b has the key of its leaf.
func isPair(b *records.Bundle) bool {
	cert, err := b.Certificate()
	if err != nil {
		return false
	}
	key, ok := cert.PrivateKey.(crypto.Signer)
	return ok && b.HasKey(key.Public())
}

// listenAddr is a port of a host.
func listenAddr(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
