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

	"go.uber.org/zap"

	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/internal/hostname"
	"github.com/certwright/certwright/internal/schedule"
)

// Manager keeps certificates for the names it manages and answers handshakes
// with them. Make one with [New]. It is safe for concurrent use.
//
// A Manager owns every goroutine it starts and every lease it takes; all end
// with Close. Managers know nothing of each other but what they share in
// storage.
type Manager struct {
	conf       Config
	ownStorage *DirStorage // opened by New; nil when the caller brought one
	rawStorage Storage     // what conf.Storage calls, which bounds each call
	log        *zap.Logger
	slog       *slog.Logger
	policy     renewalPolicy

	cache   *certcache.Cache
	table   *challenge.Table
	ports   *challenge.Ports
	queue   *schedule.Queue
	events  *events
	files   []*staticFile
	sources *sources
	env     *issuerEnv

	cleaner *cleaner

	ocspClient  *http.Client
	validations lastAsked

	ctx    context.Context // ends with Close; all work runs on it
	cancel context.CancelFunc
	work   sync.WaitGroup // the run group: every goroutine that was started
	closed chan struct{}  // closed when all of them have ended

	// What was seen of the program's own servers.
	servesHTTP, servesTLS atomic.Bool // answered a request, a handshake
	wiredHTTP, wiredTLS   atomic.Bool // HTTPHandler, TLSConfig was asked for
	syncs                 atomic.Int32

	// mu guards the fields below. It is taken before a managed's mu and never
	// held during I/O, a callback or a log line.
	mu           sync.Mutex
	managed      map[string]*managed // by ID
	byName       map[string][]string // IDs by name
	issuers      map[string]Issuer   // bound, by ID
	bound        map[Issuer]Issuer   // bound, by what the caller gave
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
		cache:  certcache.New(),
		events: newEvents(),
		closed: make(chan struct{}),

		ocspClient: newOCSPClient(),
		managed:    map[string]*managed{}, byName: map[string][]string{},
		issuers: map[string]Issuer{}, bound: map[Issuer]Issuer{}, limits: map[string]*orderLimit{},
	}
	if m.log == nil {
		m.log = defaultLogger()
	}
	m.slog = slogOf(m.log)
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
	if m.sources, err = openSources(conf.Adopt, m.log); err != nil {
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
	if conf.OnEvent != nil {
		m.events.subscribe(conf.OnEvent)
	}
	m.noteStorage()
	return nil
}

// noteStorage says where certificates are kept: whoever starts a container
// without a volume wants to know.
func (m *Manager) noteStorage() {
	d, ok := m.rawStorage.(*DirStorage)
	if !ok {
		return
	}
	m.log.Info("storage opened", zap.String("path", d.Path()), zap.Bool("fresh", d.Fresh()))
	for _, w := range d.Warnings() {
		m.log.Warn("storage", zap.String("warning", w))
	}
	if d.Fresh() {
		m.log.Warn("the storage directory is new: if certificates were issued before, they were kept elsewhere and will be issued again, which counts towards the CA's limits", zap.String("path", d.Path()))
	}
}

// start begins the work.
func (m *Manager) start() {
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.queue = schedule.New(schedule.Options{
		Workers: m.conf.Workers,
		Run:     m.run,
		Panic: func(key string, value any, stack []byte) {
			m.log.Error("recovered a panic in a worker", zap.String("key", key), zap.Any("panic", value), zap.ByteString("stack", stack))
		},
	})
	m.work.Go(func() { m.queue.Run(m.ctx) })
	m.work.Go(func() { m.events.run(m.ctx) })
	for _, f := range m.files {
		m.queue.Set(f.key, time.Now().Add(fileCheck))
	}
	if m.conf.CleanInterval > 0 {
		first := min(m.conf.CleanInterval, cleanFirst)
		m.queue.Set(cleanKey, time.Now().Add(first/2+time.Duration(rand.Float64()*float64(first)/2)))
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
			m.log.Warn("closing the storage", zap.Error(err))
		}
	}
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
		return nil, configErrorf(field, "has the same ID as another issuer: %q", id)
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

// ManageSync manages a certificate for each of names and returns when each has
// one, or when the first attempt to get it has failed; then the errors are
// joined. The names stay managed in either case, and what failed is tried again
// in the background. Names that are managed already are looked at again. When
// ctx ends, ManageSync returns and the work goes on.
func (m *Manager) ManageSync(ctx context.Context, names []string) error {
	return m.Manage(ctx, specsOf(names)...)
}

// ManageAsync is ManageSync without the wait: it returns once it knows that the
// names can be managed.
func (m *Manager) ManageAsync(names []string) error {
	_, err := m.add(specsOf(names), false)
	return err
}

// Manage is ManageSync for certificates that need more saying.
func (m *Manager) Manage(ctx context.Context, specs ...Spec) error {
	m.syncs.Add(1)
	defer m.syncs.Add(-1)
	waits, err := m.add(specs, true)
	if err != nil {
		return err
	}
	var errs []error
	for _, w := range waits {
		select {
		case err := <-w:
			errs = append(errs, err)
		case <-ctx.Done():
			return errors.Join(append(errs, fmt.Errorf("waiting for certificates: %w", context.Cause(ctx)))...)
		}
	}
	return errors.Join(errs...)
}

func specsOf(names []string) []Spec {
	specs := make([]Spec, 0, len(names))
	for _, n := range names {
		specs = append(specs, Spec{Names: []string{n}})
	}
	return specs
}

// plan is a checked Spec.
type plan struct {
	names    []string
	keyTypes []KeyType
	set      *settings
}

// add puts specs under management and has each looked at. All are checked
// before the first is added.
func (m *Manager) add(specs []Spec, wait bool) ([]chan error, error) {
	plans, err := m.check(specs)
	if err != nil {
		return nil, err
	}
	var waits []chan error
	var keys []string
	m.mu.Lock()
	if m.isClosed {
		m.mu.Unlock()
		return nil, ErrClosed
	}
	for _, p := range plans {
		for rank, t := range p.keyTypes {
			c := m.entryLocked(p, t, rank)
			if wait {
				waits = append(waits, c.wait(false))
			}
			keys = append(keys, certKey(c.id))
		}
	}
	m.mu.Unlock()
	for _, k := range keys {
		m.queue.SetNow(k)
	}
	return waits, nil
}

// entryLocked returns the managed certificate for a plan and key type.
func (m *Manager) entryLocked(p plan, t KeyType, rank int) *managed {
	id := certID(p.names, t)
	if c := m.managed[id]; c != nil {
		c.mu.Lock()
		c.set = p.set
		c.mu.Unlock()
		return c
	}
	c := &managed{id: id, names: p.names, keyType: t, rank: rank, set: p.set, ready: make(chan struct{})}
	c.status = NameStatus{Name: p.names[0], Names: p.names, KeyType: t, NextAction: "load", NextAt: time.Now().Round(0)}
	m.managed[id] = c
	for _, n := range p.names {
		m.byName[n] = append(m.byName[n], id)
	}
	return c
}

func (m *Manager) check(specs []Spec) ([]plan, error) {
	plans := make([]plan, 0, len(specs))
	var errs []error
	for i, s := range specs {
		p, err := m.checkSpec(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("name %d: %w", i+1, err))
			continue
		}
		plans = append(plans, p)
	}
	return plans, errors.Join(errs...)
}

func (m *Manager) checkSpec(s Spec) (plan, error) {
	p := plan{set: &settings{profile: s.Profile, mustStaple: s.MustStaple, notBefore: s.NotBefore, notAfter: s.NotAfter, issuers: m.conf.Issuers}}
	if p.set.profile == "" {
		p.set.profile = m.conf.Profile
	}
	if len(s.Names) == 0 {
		return p, configErrorf("Spec.Names", "is empty")
	}
	for i, n := range s.Names {
		name, err := hostname.Normalize(n)
		if err != nil {
			return p, &ConfigError{Field: fmt.Sprintf("Spec.Names[%d]", i), Err: err}
		}
		if !slices.Contains(p.names, name) {
			p.names = append(p.names, name)
		}
	}
	var err error
	if p.keyTypes, err = checkKeyTypes("Spec.KeyTypes", s.KeyTypes); err != nil {
		return p, err
	}
	if len(p.keyTypes) == 0 {
		p.keyTypes = m.conf.KeyTypes
	}
	p.set.anyKey = len(p.keyTypes) == 1
	if s.NotAfter != 0 && s.NotAfter <= max(s.NotBefore, 0) {
		return p, configErrorf("Spec.NotAfter", "must be above zero and after NotBefore")
	}
	if len(s.Issuers) > 0 {
		p.set.issuers = nil
		m.mu.Lock()
		defer m.mu.Unlock()
		for i, iss := range s.Issuers {
			b, err := m.bindLocked(fmt.Sprintf("Spec.Issuers[%d]", i), iss)
			if err != nil {
				return p, err
			}
			p.set.issuers = append(p.set.issuers, b)
		}
	}
	return p, checkIssuers(p)
}

// checkIssuers says what none of the issuers could issue; what one of them can
// is left to be tried.
func checkIssuers(p plan) error {
	var first error
	for _, iss := range p.set.issuers {
		ck, ok := iss.(interface {
			check(names []string, profile string) error
		})
		if !ok {
			return nil
		}
		err := ck.check(p.names, p.set.profile)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// Unmanage stops managing certificates: nothing is renewed or served for them
// any more, and an attempt in progress is cancelled. What is in storage stays. A
// certificate for several names is dropped when all of them are given;
// otherwise an error says so and nothing is changed for it. A name that is not
// managed is reported as ErrNotManaged.
func (m *Manager) Unmanage(names ...string) error {
	var errs []error
	set := map[string]bool{}
	for _, n := range names {
		name, err := hostname.Normalize(n)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		set[name] = true
	}
	dropped, err := m.removeManaged(set)
	errs = append(errs, err)
	for _, c := range dropped {
		m.queue.Remove(certKey(c.id))
		c.drop(ErrNotManaged)
		m.cache.Remove(time.Now(), c.id)
		m.events.emit(Event{Kind: EventUnmanaged, Name: c.names[0], Names: c.names})
	}
	return errors.Join(errs...)
}

func (m *Manager) removeManaged(set map[string]bool) (dropped []*managed, err error) {
	var errs []error
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range set {
		ids := m.byName[name]
		if len(ids) == 0 && !slices.ContainsFunc(dropped, func(c *managed) bool { return slices.Contains(c.names, name) }) {
			errs = append(errs, fmt.Errorf("name %q: %w", name, ErrNotManaged))
		}
		for _, id := range slices.Clone(ids) {
			c := m.managed[id]
			if i := slices.IndexFunc(c.names, func(n string) bool { return !set[n] }); i >= 0 {
				errs = append(errs, fmt.Errorf("name %q shares a certificate with %q: name all of %v", name, c.names[i], c.names))
				continue
			}
			delete(m.managed, id)
			for _, n := range c.names {
				m.byName[n] = slices.DeleteFunc(m.byName[n], func(s string) bool { return s == id })
				if len(m.byName[n]) == 0 {
					delete(m.byName, n)
				}
			}
			dropped = append(dropped, c)
		}
	}
	return dropped, errors.Join(errs...)
}

// Renew replaces the certificates of a managed name now, whether or not they
// are due, and returns when that is done or has failed. Back-off of the
// Manager's own is passed over.
func (m *Manager) Renew(ctx context.Context, name string) error {
	list, err := m.entries(name)
	if err != nil {
		return err
	}
	m.syncs.Add(1)
	defer m.syncs.Add(-1)
	waits := make([]chan error, 0, len(list))
	for _, c := range list {
		waits = append(waits, c.wait(true))
		m.queue.SetNow(certKey(c.id))
	}
	var errs []error
	for _, w := range waits {
		select {
		case err := <-w:
			errs = append(errs, err)
		case <-ctx.Done():
			return errors.Join(append(errs, fmt.Errorf("waiting for the renewal of %q: %w", name, context.Cause(ctx)))...)
		}
	}
	return errors.Join(errs...)
}

// Wait returns when a certificate for a managed name is served, or ctx ends.
func (m *Manager) Wait(ctx context.Context, name string) error {
	list, err := m.entries(name)
	if err != nil {
		return err
	}
	select {
	case <-list[0].ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for a certificate for %q: %w", name, context.Cause(ctx))
	case <-m.ctx.Done():
		return ErrClosed
	}
}

// entries returns the managed certificates for a name.
func (m *Manager) entries(name string) ([]*managed, error) {
	n, err := hostname.Normalize(name)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed {
		return nil, ErrClosed
	}
	var list []*managed
	for _, id := range m.byName[n] {
		list = append(list, m.managed[id])
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("name %q: %w", n, ErrNotManaged)
	}
	return list, nil
}

// Subscribe has f called for every event from now on, one at a time, on a
// goroutine of the Manager's own, until cancel is called. An f that is slow
// loses events, of which it is told by an EventDropped.
func (m *Manager) Subscribe(f func(Event)) (cancel func()) { return m.events.subscribe(f) }

func (m *Manager) all() []*managed {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]*managed, 0, len(m.managed))
	for _, c := range m.managed {
		list = append(list, c)
	}
	return list
}

func (m *Manager) entry(id string) *managed {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.managed[id]
}

// degraded reports that something of c could not be kept in storage, or read.
func (m *Manager) degraded(c *managed, what string, err error) {
	text := what + ": " + err.Error()
	m.log.Error(what, zap.String("name", c.names[0]), zap.Error(err))
	m.mu.Lock()
	m.lastDegraded = text
	m.mu.Unlock()
	c.mu.Lock()
	c.status.Degraded = text
	c.mu.Unlock()
	m.emit(c, Event{Kind: EventStorageDegraded, Err: fmt.Errorf("%s: %w", what, err)})
}

// panicError is what waiters are told when the work on their name panicked.
func panicError(value any) error {
	return fmt.Errorf("certwright: internal error: %v\n%s", value, debug.Stack())
}
