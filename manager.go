package certwright

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/internal/schedule"
	"github.com/certwright/certwright/storage"
)

// Manager keeps certificates for the names it manages and answers handshakes
// with them. Make one with [New]. It is safe for concurrent use.
//
// A Manager owns every goroutine it starts and every lease it takes; all end
// with Close. Managers know nothing of each other but what they share in
// storage.
type Manager struct {
	conf       Config
	ownStorage *storage.Dir // opened by New; nil when the caller brought one
	rawStorage Storage      // what conf.Storage calls, which bounds each call
	log        *slog.Logger
	policy     renewalPolicy

	cache   *certcache.Cache
	table   *challenge.Table
	decoder decoder
	early   chan struct{} // holds a value for each early load that runs
	ports   *challenge.Ports
	queue   *schedule.Queue
	events  events
	files   []*staticCert
	sources *sources // nil when there is nothing to adopt
	env     *issuerEnv

	cleaner *cleaner

	ocspClient  *http.Client
	validations lastAsked

	ctx    context.Context // ends with Close; all work runs on it
	cancel context.CancelFunc
	work   sync.WaitGroup // the run group: every goroutine that was started
	closed chan struct{}  // closed when all of them have ended

	listening sync.WaitGroup // the goroutine that calls OnEvent

	later atomic.Pointer[later] // nil: all names were added

	// What was seen of the program's own servers.
	servesHTTP, servesTLS atomic.Bool // answered a request, a handshake
	wiredHTTP, wiredTLS   atomic.Bool // HTTPHandler, TLSConfig was asked for
	syncs                 atomic.Int32

	// mu guards the fields below. It is taken before a managed's mu and never
	// held during I/O, a callback or a log line.
	mu           sync.Mutex
	issuers      map[string]Issuer // bound, by ID
	bound        map[Issuer]Issuer // bound, by what the caller gave
	limits       map[string]*orderLimit
	isClosed     bool
	lastDegraded string
}

// New returns a Manager for conf, or an error that names the field at fault. It
// looks into storage for no longer than a few seconds, to see which version wrote it, and
// makes no request to a CA. The Manager must be closed.
func New(conf Config) (*Manager, error) {
	conf.Certificates = slices.Clone(conf.Certificates)
	if err := conf.validate(); err != nil {
		return nil, err
	}
	m := &Manager{
		log:    conf.Logger,
		policy: renewalPolicy{fraction: conf.RenewalFraction},
		cache:  certcache.New(conf.hotCertificates()),
		closed: make(chan struct{}),

		ocspClient: newOCSPClient(),

		issuers: map[string]Issuer{}, bound: map[Issuer]Issuer{}, limits: map[string]*orderLimit{},
	}
	if m.log == nil {
		m.log = defaultLogger()
	}
	m.cache.OnError = m.noteBroken
	if err := m.setUp(&conf); err != nil {
		if m.ownStorage != nil {
			err = errors.Join(err, m.ownStorage.Close())
		}
		return nil, err
	}
	m.start()
	return m, nil
}

// setUp makes what conf asks for. Nothing is running yet.
func (m *Manager) setUp(conf *Config) (err error) {
	if m.ownStorage, err = conf.openStorage(); err != nil {
		return err
	}
	m.conf = *conf
	if err := m.checkLayout(); err != nil {
		return &ConfigError{Field: "Config.Storage", Err: err}
	}
	m.rawStorage, m.conf.Storage = conf.Storage, boundStorage{conf.Storage}
	m.table = challenge.New(m.conf.Storage, keyChallenges, challengeCert)
	m.ports = m.newPorts()
	if m.sources, err = openSources(m.conf.Adopt, m.log); err != nil {
		return err
	}
	m.env = m.newEnv()
	m.cleaner = &cleaner{m: m, interval: conf.CleanInterval, grace: conf.CleanGrace}
	for i, iss := range conf.Issuers {
		field := fmt.Sprintf("Config.Issuers[%d]", i)
		if conf.Directory != "" { // it is the one made from Config.Directory
			field = "Config"
		}
		if m.conf.Issuers[i], err = m.bindLocked(field, iss); err != nil {
			return err
		}
	}
	if err := m.loadStatic(); err != nil {
		return err
	}
	m.noteStorage()
	return nil
}

// noteStorage says where certificates are kept: whoever starts a container
// without a volume wants to know.
func (m *Manager) noteStorage() {
	d, ok := storage.Find[*storage.Dir](m.rawStorage)
	if !ok {
		return
	}
	m.log.Info("storage opened", "path", d.Path(), "fresh", d.Fresh())
	for _, w := range d.Warnings() {
		m.log.Warn("storage", "warning", w)
	}
	if d.Fresh() {
		m.log.Warn("the storage directory is new: if certificates were issued before, they were kept elsewhere and will be issued again, which counts towards the CA's limits", "path", d.Path())
	}
}

// start begins the work.
func (m *Manager) start() {
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.early = make(chan struct{}, m.conf.Workers)
	m.queue = schedule.New(schedule.Options{
		Workers: m.conf.Workers,
		Panic: func(w schedule.Work, value any, stack []byte) {
			m.log.Error("recovered a panic in a worker", "work", w.String(), "panic", fmt.Sprint(value), "stack", string(stack))
		},
	})
	m.work.Go(func() { m.queue.Run(m.ctx) })
	if m.conf.OnEvent != nil {
		l := &listener{m: m, events: m.events.subscribe(context.Background()), failed: map[EventKind]bool{}}
		m.listening.Go(l.run)
	}
	for _, f := range m.files {
		m.queue.Set(f, time.Now().Add(fileCheck))
	}
	if m.conf.CleanInterval > 0 {
		first := min(m.conf.CleanInterval, cleanFirst)
		m.queue.Set(m.cleaner, time.Now().Add(first/2+time.Duration(rand.Float64()*float64(first)/2)))
	}
}

// Close ends the work in progress, releases its leases and waits until every
// goroutine has ended, or ctx has. It may be called several times. Handshakes
// are still answered from memory afterwards, so that a server can be shut down
// in any order.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	first := !m.isClosed
	m.isClosed = true
	m.mu.Unlock()
	m.cancel()
	if first {
		go m.finish()
	}
	select {
	case <-m.closed:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-m.closed: // what has ended has ended, whatever became of ctx
		return nil
	default:
		return fmt.Errorf("closing the manager: %w", context.Cause(ctx))
	}
}

// finish waits for the run group and lets go of what it used.
func (m *Manager) finish() {
	m.work.Wait()
	for _, c := range m.all() {
		c.drop(ErrClosed)
	}
	m.mu.Lock()
	bound := make([]Issuer, 0, len(m.issuers))
	for _, iss := range m.issuers {
		bound = append(bound, iss)
	}
	m.mu.Unlock()
	for _, iss := range bound {
		if b, ok := iss.(*acmeIssuer); ok {
			b.close()
		}
	}
	m.ocspClient.CloseIdleConnections()
	if m.ownStorage != nil {
		if err := m.ownStorage.Close(); err != nil {
			m.log.Warn("closing the storage", "err", err)
		}
	}
	m.events.close()
	m.listening.Wait()
	close(m.closed)
}

// bindLocked ties an issuer to the Manager, once. It is called with mu held, or
// before the Manager is in use.
func (m *Manager) bindLocked(field string, iss Issuer) (Issuer, error) {
	if isNil(iss) {
		return nil, configErrorf(field, "is nil")
	}
	if !reflect.TypeOf(iss).Comparable() {
		return nil, configErrorf(field, "is a %T, two of which cannot be told apart; use a pointer to one", iss)
	}
	if b := m.bound[iss]; b != nil {
		return b, nil
	}
	out := iss
	if a, ok := iss.(*ACME); ok {
		b, err := a.bind(m.env)
		if err != nil {
			var ce *ConfigError
			if errors.As(err, &ce) && strings.HasPrefix(ce.Field, "ACME.") {
				return nil, &ConfigError{Field: field + strings.TrimPrefix(ce.Field, "ACME"), Err: ce.Err}
			}
			return nil, err
		}
		out = b
	}
	id := out.ID()
	if !validIssuerID(id) {
		return nil, configErrorf(field, "has the ID %q; an ID consists of letters, digits, \".\", \"-\", \"_\" and \"+\"", id)
	}
	if m.issuers[id] != nil {
		return nil, configErrorf(field, "has the same ID as another issuer: %q; set Account of an *ACME to have another account at the same CA", id)
	}
	m.issuers[id], m.bound[iss] = out, out
	if b, ok := out.(*acmeIssuer); ok && b.conf.OrderLimit.Orders > 0 {
		m.limits[id] = &orderLimit{limit: b.conf.OrderLimit}
	}
	return out, nil
}

func validIssuerID(id string) bool {
	return id != "" && id != "." && id != ".." && len(id) <= 200 && strings.IndexFunc(id, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(".-_+", r))
	}) < 0
}

// all returns every managed certificate.
func (m *Manager) all() []*managed {
	_ = m.settle(m.ctx)
	return m.added()
}

// added is all for what was added already.
func (m *Manager) added() []*managed {
	list := make([]*managed, 0, m.cache.Len())
	for e := range m.cache.All() {
		if c := asManaged(e); c != nil {
			list = append(list, c)
		}
	}
	return list
}

// entry returns the managed certificate with that ID, or nil.
func (m *Manager) entry(id string) *managed {
	_ = m.settle(m.ctx)
	return m.find(id)
}

// find is entry for what was added already.
func (m *Manager) find(id string) *managed {
	for _, c := range m.managedFor(nameOf(id)) {
		if c.id() == id {
			return c
		}
	}
	return nil
}

// degraded reports that something of c could not be kept in storage, or read.
func (m *Manager) degraded(c *managed, what string, err error) {
	c.noteDegraded(degradedText(what, err))
	m.tellDegraded(c, what, err)
}

func degradedText(what string, err error) string { return what + ": " + err.Error() }

// tellDegraded is degraded but for what Status says of c.
func (m *Manager) tellDegraded(c *managed, what string, err error) {
	m.log.Error(what, "name", c.Names[0], "err", err)
	m.mu.Lock()
	m.lastDegraded = degradedText(what, err)
	m.mu.Unlock()
	m.emit(c.open(), Event{Kind: EventStorageDegraded, Err: fmt.Errorf("%s: %w", what, err)})
}

// panicError is what waiters are told when the work on their name panicked.
func panicError(value any) error {
	return fmt.Errorf("certwright: internal error: %v\n%s", value, debug.Stack())
}
