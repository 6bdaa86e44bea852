package certwright

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/certwright/certwright/acmetest"
	"github.com/certwright/certwright/storage"
)

// leakOptions passes over the goroutines of earlier tests, and over one of
// Pebble's that never ends (package acmetest).
func leakOptions() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreCurrent(),
		goleak.IgnoreAnyFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks"),
	}
}

// hang is a CA's middleware that does not answer requests of one kind until it
// is released.
type hang struct {
	mu      sync.Mutex // guards kind
	kind    string
	reached chan struct{} // one for each request that hangs
	release chan struct{}
}

func newHang() *hang {
	return &hang{reached: make(chan struct{}, 100), release: make(chan struct{})}
}

func (h *hang) at(kind string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kind = kind
}

func (h *hang) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		hit := acmetest.Kind(r) == h.kind
		h.mu.Unlock()
		if hit {
			h.reached <- struct{}{}
			select {
			case <-r.Context().Done():
			case <-h.release:
			}
			return
		}
		next.ServeHTTP(w, r)
	})
}

// closing is a Manager on a folder whose CA hangs.
type closing struct {
	ca      *acmetest.CA
	hang    *hang
	dir     string
	storage *storage.Dir
	m       *Manager
	result  chan error // of ManageSync
}

func startClosing(t *testing.T, kind string) *closing {
	t.Helper()
	h := newHang()
	h.at(kind)
	c := &closing{hang: h, dir: t.TempDir(), result: make(chan error, 1)}
	c.ca = acmetest.StartWith(t, acmetest.Options{Middleware: h.wrap})
	var err error
	if c.storage, err = storage.OpenDir(c.dir); err != nil {
		t.Fatal(err)
	}
	conf := standalone(t, c.ca)
	conf.Storage = c.storage
	if c.m, err = New(conf); err != nil {
		t.Fatal(err)
	}
	go func() { c.result <- c.m.ManageSync(context.Background(), []string{"half.example.com"}) }()
	select {
	case <-h.reached:
	case <-time.After(time.Minute):
		t.Fatalf("no request of kind %q came", kind)
	}
	return c
}

// A Manager that is closed in the middle of an order leaves nothing behind, and
// the next one gets the certificate.
func TestClose_InTheMiddleOfAnOrder(t *testing.T) {
	for _, kind := range []string{
		acmetest.KindDirectory, acmetest.KindNewNonce, acmetest.KindNewAccount, acmetest.KindNewOrder, acmetest.KindAuthz,
		acmetest.KindChallenge, acmetest.KindFinalize, acmetest.KindCert, acmetest.KindOrder,
	} {
		t.Run(kind, func(t *testing.T) {
			c := startClosing(t, kind)
			start := time.Now()
			closeManager(t, c.m)
			if took := time.Since(start); took > 5*time.Second { // a real clock on a busy machine
				t.Errorf("Close took %v", took)
			}
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
	for _, port := range []int{c.ca.HTTPPort(), c.ca.TLSPort()} {
		if conn, err := net.Dial("tcp", listenAddr("127.0.0.1", port)); err == nil {
			conn.Close()
			t.Errorf("port %d still has a listener", port)
		}
	}
	if keys, err := c.storage.List(t.Context(), keyChallenges); err != nil || len(keys) > 0 {
		t.Errorf("challenges left in storage: %v, %v", keys, err)
	}
	other, err := storage.OpenDir(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for _, name := range []string{storageKey("issue", "half.example.com"), storageKey("account", c.m.conf.Issuers[0].ID())} {
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
	c.hang.at("")
	close(c.hang.release)
	before := c.ca.Orders()
	storage, err := storage.OpenDir(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer storage.Close()
	conf := standalone(t, c.ca)
	conf.Storage = storage
	m, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer closeManager(t, m)
	if err := m.ManageSync(testContext(t), []string{"half.example.com"}); err != nil {
		t.Fatalf("the next Manager: %v", err)
	}
	if made := c.ca.Orders(); before == 1 && made != 1 {
		t.Errorf("%d orders: the one in progress was not gone on with", made)
	}
}

func TestClose_NoGoroutineIsLeft(t *testing.T) {
	options := leakOptions()
	func() {
		ca, err := acmetest.New(acmetest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer ca.Close()
		conf := standalone(t, ca)
		own := *conf.Issuers[0].(*ACME)
		own.HTTPClient = nil // the Manager's own client: it does not trust the CA
		conf.Issuers = []Issuer{conf.Issuers[0]}
		m, err := New(conf)
		if err != nil {
			t.Fatal(err)
		}
		m.Subscribe(context.Background())
		if err := m.ManageSync(testContext(t), numbered(3, "example.com")); err != nil {
			t.Error(err)
		}
		closeManager(t, m)
		conf.Issuers = []Issuer{&own}
		untrusting, err := New(conf)
		if err != nil {
			t.Fatal(err)
		}
		if err := untrusting.ManageSync(testContext(t), []string{"untrusted.example.com"}); err == nil {
			t.Error("a CA whose certificate is not trusted was asked")
		}
		closeManager(t, untrusting)
		hanging := startHanging(t, ca)
		closeManager(t, hanging)
	}()
	goleak.VerifyNone(t, options...)
}

// startHanging returns a Manager whose Issuer waits for its context.
func startHanging(t *testing.T, ca *acmetest.CA) *Manager {
	t.Helper()
	f := newFakeSigner(t)
	reached := make(chan struct{}, 1)
	f.hook = func(ctx context.Context) error {
		reached <- struct{}{}
		<-ctx.Done()
		return context.Cause(ctx)
	}
	conf := standalone(t, ca)
	conf.Issuers = []Issuer{f}
	m, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.ManageAsync([]string{"hanging.example.com"}); err != nil {
		t.Fatal(err)
	}
	<-reached
	return m
}

func TestClose_Twice(t *testing.T) {
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

// Close with a context that has ended starts the end and says that it is not
// over; work that does not heed its context is waited for.
func TestClose_EndedContext(t *testing.T) {
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
	if err := m.Close(ended); err == nil || !strings.Contains(err.Error(), "out of patience") {
		t.Errorf("Close: %v, want the cause of the context", err)
	}
	if err := m.ManageAsync([]string{"example.com"}); !errors.Is(err, ErrClosed) {
		t.Errorf("ManageAsync: %v, want ErrClosed", err)
	}
	close(release)
	closeManager(t, m)
}

// While a caller waits on its own context, the work goes on without it.
func TestManage_CallerLeaves(t *testing.T) {
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
	if err := m.Wait(testContext(t), "example.com"); err != nil {
		t.Fatal(err)
	}
	if n := f.count(); n != 1 {
		t.Errorf("%d orders, want 1", n)
	}
	if got := serials(m); !slices.Equal(got, []string{"2"}) {
		t.Errorf("serials %v", got)
	}
}
