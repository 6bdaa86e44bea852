package certwright_test

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/storage"
)

// closing is a Manager on a folder, with ports of its own, whose CA hangs.
type closing struct {
	ca      *fakeca.CA
	conf    Config
	release func() // ends the hanging
	dir     string
	storage *storage.Dir
	m       *Manager
	result  chan error // of ManageSync
}

func startClosing(t *testing.T, endpoint string) *closing {
	t.Helper()
	c := &closing{dir: t.TempDir(), result: make(chan error, 1)}
	reached := make(chan struct{}, 1)
	c.ca, c.conf = newFake(t, fakeca.Options{PollsProcessing: 1})
	c.release = c.ca.On(fakeca.Rule{Endpoint: endpoint, Hang: true, When: func(*fakeca.Request) bool {
		select {
		case reached <- struct{}{}:
		default:
		}
		return true
	}})
	var err error
	if c.storage, err = storage.OpenDir(c.dir); err != nil {
		t.Fatal(err)
	}
	c.conf.Storage, c.conf.ListenHost, c.conf.HTTPPort, c.conf.TLSPort = c.storage, "127.0.0.1", freePort(t), freePort(t)
	if c.m, err = New(c.conf); err != nil {
		t.Fatal(err)
	}
	go func() { c.result <- c.m.ManageSync(context.Background(), []string{"half.example.com"}) }()
	select {
	case <-reached:
	case <-time.After(time.Minute):
		t.Fatalf("no request to %s came", endpoint)
	}
	return c
}

// A Manager that is closed in the middle of an order leaves nothing behind, and
// the next one gets the certificate.
func TestCloseInTheMiddleOfAnOrder(t *testing.T) {
	for _, endpoint := range []string{"directory", "newNonce", "newAccount", "newOrder", "authz", "challenge", "finalize", "order", "cert"} {
		t.Run(endpoint, func(t *testing.T) {
			c := startClosing(t, endpoint)
			closeManager(t, c.m)
			if err := <-c.result; !errors.Is(err, ErrClosed) {
				t.Errorf("ManageSync: %v, want ErrClosed", err)
			}
			c.checkNothingLeft(t)
			if err := c.storage.Close(); err != nil {
				t.Error(err)
			}
			c.finish(t)
		})
	}
}

func (c *closing) checkNothingLeft(t *testing.T) {
	t.Helper()
	for _, port := range []int{c.conf.HTTPPort, c.conf.TLSPort} {
		if conn, err := net.Dial("tcp", listenAddr("127.0.0.1", port)); err == nil {
			conn.Close()
			t.Errorf("port %d still has a listener", port)
		}
	}
	if keys, err := c.storage.List(t.Context(), keyChallenges); err != nil || len(keys) > 0 {
		t.Errorf("challenges left in storage: %v, %v", keys, err)
	}
	other := openDir(t, c.dir)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	accounts, err := c.storage.List(t.Context(), keyAccounts)
	if err != nil {
		t.Fatal(err)
	}
	locks := []string{records.IssueLock(records.ID([]string{"half.example.com"}, P256))}
	for _, key := range accounts {
		locks = append(locks, "account/"+path.Base(key))
	}
	for _, name := range locks {
		lease, err := other.Lock(ctx, name)
		if err != nil {
			t.Errorf("lock %q is not free: %v", name, err)
			continue
		}
		if err := lease.Unlock(ctx); err != nil {
			t.Error(err)
		}
	}
}

// finish has a second Manager complete what was begun, without a second order
// where there was one.
func (c *closing) finish(t *testing.T) {
	t.Helper()
	c.release()
	before := len(c.ca.Orders())
	c.conf.Storage = openDir(t, c.dir)
	m, err := New(c.conf)
	if err != nil {
		t.Fatal(err)
	}
	defer closeManager(t, m)
	if err := m.ManageSync(t.Context(), []string{"half.example.com"}); err != nil {
		t.Fatalf("the next Manager: %v", err)
	}
	if made := len(c.ca.Orders()); before == 1 && made != 1 {
		t.Errorf("%d orders: the one in progress was not gone on with", made)
	}
}

func TestCloseLeavesNoGoroutine(t *testing.T) {
	earlier := goleak.IgnoreCurrent()
	func() {
		ca, conf := newFake(t, fakeca.Options{})
		conf.ListenHost, conf.HTTPPort, conf.TLSPort = "127.0.0.1", freePort(t), freePort(t)
		openDirUntil(t, func(d *storage.Dir) {
			conf.Storage = d
			m, err := New(conf)
			if err != nil {
				t.Fatal(err)
			}
			m.Subscribe(context.Background())
			manage(t, m, numbered(3, "example.com")...)
			closeManager(t, m)
		})
		closeManager(t, untrusting(t, ca))
		closeManager(t, startHanging(t))
	}()
	goleak.VerifyNone(t, earlier)
}

// openDirUntil opens a folder for as long as use takes.
func openDirUntil(t *testing.T, use func(d *storage.Dir)) {
	t.Helper()
	d, err := storage.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	use(d)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// untrusting returns a Manager that has asked, with a client of its own, a CA
// whose certificate it does not trust.
func untrusting(t *testing.T, ca *fakeca.CA) *Manager {
	t.Helper()
	srv := httptest.NewUnstartedServer(ca)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	m, err := New(Config{
		AgreeToTerms: true, Storage: storage.NewMemory(), HTTPPort: -1, TLSPort: -1, Logger: slog.New(slog.DiscardHandler),
		Issuers: []Issuer{&ACME{Directory: srv.URL + "/directory"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.ManageSync(t.Context(), []string{"untrusted.example.com"}); err == nil {
		t.Error("a CA whose certificate is not trusted was asked")
	}
	return m
}

// startHanging returns a Manager whose Issuer waits for its context.
func startHanging(t *testing.T) *Manager {
	t.Helper()
	f := newFakeSigner(t)
	reached := make(chan struct{}, 1)
	f.hook = func(ctx context.Context) error {
		reached <- struct{}{}
		<-ctx.Done()
		return context.Cause(ctx)
	}
	m, err := New(Config{Storage: storage.NewMemory(), HTTPPort: -1, TLSPort: -1, Issuers: []Issuer{f}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.ManageAsync([]string{"hanging.example.com"}); err != nil {
		t.Fatal(err)
	}
	<-reached
	return m
}

func TestCloseTwice(t *testing.T) {
	m, err := New(Config{AgreeToTerms: true, Storage: storage.NewMemory(), HTTPPort: -1, TLSPort: -1, Issuers: []Issuer{newFakeSigner(t)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.ManageSync(t.Context(), []string{"example.com"}); err != nil {
		t.Fatal(err)
	}
	results := make(chan error)
	for range 4 {
		go func() { results <- m.Close(context.Background()) }()
	}
	for range 4 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		if err := m.Close(ended); err != nil {
			t.Fatalf("a closed Manager with an ended context: %v", err)
		}
	}
	checkHello(t, m, helloFor("example.com", ""), "example.com") // handshakes are answered still
	checkHello(t, m, helloFor("else.example.com", ""), "")
	validation := helloFor("example.com", "")
	validation.SupportedProtos = []string{alpnProto}
	if _, err := m.GetCertificate(validation); err == nil {
		t.Error("a validation handshake after Close was answered")
	}
	for what, err := range map[string]error{
		"ManageSync": m.ManageSync(t.Context(), []string{"new.example.com"}), "ManageAsync": m.ManageAsync([]string{"new.example.com"}),
		"Renew": m.Renew(t.Context(), "example.com"), "Wait": m.Wait(t.Context(), "example.com"),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", what, err)
		}
	}
	if w := ask(m.HTTPHandler(nil), "example.com", "/"); w.Code != http.StatusMovedPermanently {
		t.Errorf("the redirect after Close: %d", w.Code)
	}
}

// Close with a context that has ended starts the end and says that it is not over;
// work that does not heed its context is waited for.
func TestCloseWithAnEndedContext(t *testing.T) {
	f := newFakeSigner(t)
	reached, release := make(chan struct{}), make(chan struct{})
	f.hook = func(context.Context) error {
		close(reached)
		<-release
		return errors.New("released")
	}
	m, err := New(Config{AgreeToTerms: true, Storage: storage.NewMemory(), HTTPPort: -1, TLSPort: -1, Issuers: []Issuer{f}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.ManageAsync([]string{"example.com"}); err != nil {
		t.Fatal(err)
	}
	<-reached
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("out of patience"))
	if err := m.Close(ended); err == nil || !strings.Contains(err.Error(), "out of patience") || !strings.Contains(err.Error(), "example.com") {
		t.Errorf("Close: %v, want the name and the cause of the context", err)
	}
	if err := m.ManageAsync([]string{"example.com"}); !errors.Is(err, ErrClosed) {
		t.Errorf("ManageAsync: %v, want ErrClosed", err)
	}
	close(release)
	closeManager(t, m)
}

// While a caller waits on its own context, the work goes on without it.
func TestWorkGoesOnWithoutItsCaller(t *testing.T) {
	f := newFakeSigner(t)
	reached, release := make(chan struct{}, 1), make(chan struct{})
	f.hook = func(context.Context) error {
		reached <- struct{}{}
		<-release
		return nil
	}
	m := offline(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { result <- m.ManageSync(ctx, []string{"example.com"}) }()
	<-reached
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("ManageSync: %v, want the context's error", err)
	}
	close(release)
	if err := m.Wait(t.Context(), "example.com"); err != nil {
		t.Fatal(err)
	}
	if n := f.count(); n != 1 {
		t.Errorf("%d orders, want 1", n)
	}
	if s := statusFor(t, m, "example.com"); s.Serial != "2" {
		t.Errorf("served is the certificate %q", s.Serial)
	}
}
