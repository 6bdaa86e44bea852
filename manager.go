package certwright

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/internal/certcache"
	"github.com/certwright/certwright/internal/challenge"
	"github.com/certwright/certwright/internal/lane"
	"github.com/certwright/certwright/internal/records"
	"github.com/certwright/certwright/internal/schedule"
	"github.com/certwright/certwright/storage"
)

// storageSlow is when a call of the storage is slow: most take milliseconds, and
// one that hangs must not hold up the others for long.
const storageSlow = 200 * time.Millisecond

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

	cache     *certcache.Cache
	table     *challenge.Table
	records   *records.Records
	changes   *records.Changes
	lookEvery time.Duration // at changes of other instances
	changed   chan struct{} // has a value when there is a change to tell
	ports     *challenge.Ports
	queue     *schedule.Queue
	events    events
	files     []*staticCert
	env       *issuerEnv
	sources   *sources
	cleaner   *cleaner
	leftovers *leftovers

	// What blocks runs in these and in those of the issuers.
	storageLane *lane.Lane
	filesLane   *lane.Lane // of static certificates
	ocspLanes   ocspLanes

	ocspClient  *http.Client
	validations lastAsked
	listening   sync.WaitGroup // Config.OnEvent is called
	calls       calls
	cleaningUp  sync.Map     // chan struct{}, closed at its end, of each Solver's CleanUp that runs, by journal key
	waiting     atomic.Int32 // handshakes that wait

	began    time.Time       // when New was called
	ctx      context.Context // ends with Close; all work runs on it
	cancel   context.CancelFunc
	work     sync.WaitGroup // the run group: every goroutine that was started
	spawning sync.Mutex     // guards ended; nothing is taken under it
	ended    bool           // nothing is started any more
	closed   chan struct{}  // closed when all of them have ended

	// What was seen of the program's own servers.
	servesHTTP, servesTLS atomic.Bool // answered a request, a handshake
	wiredHTTP, wiredTLS   atomic.Bool // HTTPHandler, TLSConfig was asked for
	syncs                 atomic.Int32
	namesTold             atomic.Bool // DefaultName or FallbackName is not managed

	challengesAt atomic.Int64 // when those that were left were last looked for, Unix seconds

	bound []*issuer // those of Config.Issuers

	// mu guards the fields below. It is taken before a managed's mu and never
	// held during I/O, a callback or a log line.
	mu       sync.Mutex
	issuers  map[string]*issuer    // by ID
	given    map[Issuer]*issuer    // by what the caller gave
	upkeep   map[string]*lane.Lane // of CAs, for what is asked beside orders
	sets     map[string]*managed   // those whose ID does not tell a name, by ID
	isClosed bool
}

// New returns a Manager for conf, or an error that names the field at fault. It
// makes no request to a CA. The Manager must be closed.
func New(conf Config) (*Manager, error) { return newManager(conf, changesEvery) }

// newManager is New for a Manager that looks so often at what other instances have
// changed.
func newManager(conf Config, lookEvery time.Duration) (*Manager, error) {
	conf.Certificates = slices.Clone(conf.Certificates)
	if err := conf.validate(); err != nil {
		return nil, err
	}
	m := &Manager{
		log: conf.Logger, began: time.Now(), lookEvery: lookEvery, policy: renewalPolicy{fraction: conf.RenewalFraction},
		cache: certcache.New(conf.hotCertificates()), closed: make(chan struct{}), changed: make(chan struct{}, 1), ocspClient: newOCSPClient(),
		issuers: map[string]*issuer{}, given: map[Issuer]*issuer{}, upkeep: map[string]*lane.Lane{}, sets: map[string]*managed{},
	}
	if m.log == nil {
		m.log = defaultLogger()
	}
	m.cache.OnError = m.noteBroken
	m.ctx, m.cancel = context.WithCancel(context.Background())
	if err := m.setUp(&conf); err != nil {
		m.cancel()
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
	m.rawStorage, m.conf.Storage = conf.Storage, boundStorage{conf.Storage}
	isDamage := func(err error) bool { return errors.Is(err, storage.ErrDamaged) }
	m.records = records.New(m.conf.Storage, records.Options{Damage: isDamage})
	m.changes = m.records.NewChanges(instanceID())
	m.table = challenge.New(challenge.Options{
		Store: m.conf.Storage, Prefix: "v1/" + string(records.Challenges), Cert: challengeCert, Go: m.spawn, Context: m.ctx, Damaged: isDamage,
	})
	m.ports = m.newPorts()
	m.queue = schedule.New(schedule.Options{Panic: func(w schedule.Work, value any, stack []byte) {
		m.log.Error("recovered a panic in the schedule", "work", w.String(), "panic", fmt.Sprint(value), "stack", string(stack))
	}})
	m.storageLane = lane.New(lane.Options{Name: "storage", Slots: conf.Workers, Slow: storageSlow, Go: m.spawn})
	m.filesLane = m.newLane("files")
	m.ocspLanes.open = func(host string) *lane.Lane { return m.newLane("ocsp " + host) }
	if m.sources, err = openSources(conf.Adopt, m.log, m.spawn); err != nil {
		return err
	}
	m.env = m.newEnv()
	m.leftovers = &leftovers{m: m}
	m.cleaner = &cleaner{m: m, interval: conf.CleanInterval, grace: conf.CleanGrace}
	field := "Config.Issuers"
	if conf.Directory != "" { // it is the one made from Config.Directory
		field = "Config"
	}
	if m.bound, err = m.bindAll(field, conf.Issuers); err != nil {
		return err
	}
	if err := m.loadStatic(); err != nil {
		return err
	}
	m.noteStorage()
	return nil
}

// newLane returns a lane whose goroutines are of the run group.
func (m *Manager) newLane(name string) *lane.Lane {
	return lane.New(lane.Options{Name: name, Slots: m.conf.Workers, Go: m.spawn})
}

// spawn runs f on a goroutine of the run group, and not at all once that has
// ended.
func (m *Manager) spawn(f func()) {
	m.spawning.Lock()
	defer m.spawning.Unlock()
	if !m.ended {
		m.work.Go(f)
	}
}

// instanceID tells this Manager from others that share its storage.
func instanceID() string { return fmt.Sprintf("%016x", rand.Uint64()) }

// noteStorage says where certificates are kept: whoever starts a container
// without a volume wants to know.
func (m *Manager) noteStorage() {
	d, ok := storage.Find[*storage.Dir](m.rawStorage)
	if !ok {
		return
	}
	for _, w := range d.Warnings() {
		m.log.Warn("storage", "warning", w)
	}
	if d.Fresh() && len(m.conf.Adopt) == 0 {
		m.log.Info("certificates are kept in a new folder; keep it from one start to the next", "path", d.Path())
		return
	}
	m.log.Info("certificates are kept in a folder", "path", d.Path())
}

// start begins the work.
func (m *Manager) start() {
	m.spawn(func() { m.queue.Run(m.ctx) })
	m.spawn(func() { m.watchChanges(m.ctx) })
	if m.conf.OnEvent != nil {
		l := &listener{m: m, events: m.events.subscribe(context.Background()), failed: map[EventKind]bool{}}
		m.listening.Go(l.run)
	}
	for _, f := range m.files {
		m.queue.Set(f, time.Now().Add(fileCheck).Unix())
	}
	if m.conf.CleanInterval > 0 {
		first := min(m.conf.CleanInterval, cleanFirst)
		m.queue.Set(m.cleaner, time.Now().Add(first/2+time.Duration(rand.Float64()*float64(first)/2)).Unix())
	}
}

// Close ends the work in progress, releases its leases and waits until every
// goroutine has ended, or ctx has: then the error names the work, and the calls of
// the program's own code, that do not return although they were told to: of an
// Issuer, a Solver, a Storage, a lease or OnEvent. It may be called several times. Handshakes
// are still answered from memory afterwards, so that a server can be shut down
// in any order.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	first := !m.isClosed
	m.isClosed = true
	m.mu.Unlock()
	if first {
		for _, l := range m.lanes() {
			l.Close()
		}
		m.cancel()
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
	}
	var stuck []string
	for _, l := range m.lanes() {
		s := l.Status()
		stuck = append(append(stuck, s.Flying...), s.Abandoned...)
	}
	stuck = append(stuck, m.calls.names()...)
	if len(stuck) > 0 {
		return fmt.Errorf("closing the manager: work on %s does not end: %w", strings.Join(stuck, ", "), context.Cause(ctx))
	}
	return fmt.Errorf("closing the manager: %w", context.Cause(ctx))
}

// lanes returns all lanes.
func (m *Manager) lanes() []*lane.Lane {
	out := append(m.ocspLanes.all(), m.storageLane, m.filesLane)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, iss := range m.issuers {
		out = append(out, iss.lane)
	}
	for _, l := range m.upkeep {
		out = append(out, l)
	}
	return out
}

// finish waits for the run group and lets go of what it used.
func (m *Manager) finish() {
	for _, c := range m.all() {
		m.change(c, func(*news) {}) // who waits is told
	}
	m.spawning.Lock()
	m.ended = true
	m.spawning.Unlock()
	m.work.Wait()
	m.mu.Lock()
	bound := make([]*issuer, 0, len(m.issuers))
	for _, iss := range m.issuers {
		bound = append(bound, iss)
	}
	m.mu.Unlock()
	for _, iss := range bound {
		if b, ok := iss.Issuer.(*acmeIssuer); ok {
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
	m.calls.wait()
	close(m.closed)
}

// bindAll ties issuers to the Manager.
func (m *Manager) bindAll(field string, list []Issuer) (bound []*issuer, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, iss := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		if field == "Config" {
			at = field
		}
		b, err := m.bindLocked(at, iss)
		if err != nil {
			return nil, err
		}
		bound = append(bound, b)
	}
	return bound, nil
}

// bindLocked ties an issuer to the Manager, once.
func (m *Manager) bindLocked(field string, given Issuer) (*issuer, error) {
	if isNil(given) {
		return nil, configErrorf(field, "is nil")
	}
	if !reflect.ValueOf(given).Comparable() {
		return nil, configErrorf(field, "is a %T, two of which cannot be told apart; use a pointer to one", given)
	}
	if b := m.given[given]; b != nil {
		return b, nil
	}
	out := given
	if a, ok := given.(*ACME); ok {
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
	iss := &issuer{Issuer: out, id: out.ID(), ca: caOf(out)}
	if !validIssuerID(iss.id) {
		return nil, configErrorf(field, "has the ID %q; an ID consists of letters, digits, \".\", \"-\", \"_\" and \"+\"", iss.id)
	}
	if m.issuers[iss.id] != nil {
		return nil, configErrorf(field, "has the same ID as another issuer: %q; set Account of an *ACME to have another account at the same CA", iss.id)
	}
	iss.lane, iss.timeout = m.newLane(iss.id), obtainTimeout
	if b, ok := out.(*acmeIssuer); ok {
		iss.timeout = b.conf.Timeout + aroundIssue
		iss.lane.SetRate(b.conf.OrderLimit.Orders, b.conf.OrderLimit.Per)
		if len(b.conf.Solvers) > 0 {
			m.leftovers.soon()
		}
	}
	if m.upkeep[iss.ca] == nil {
		m.upkeep[iss.ca] = m.newLane("renewal info of " + iss.ca)
	}
	iss.upkeep = m.upkeep[iss.ca]
	m.issuers[iss.id], m.given[given] = iss, iss
	return iss, nil
}

func validIssuerID(id string) bool {
	return id != "" && id != "." && id != ".." && len(id) <= 200 && strings.IndexFunc(id, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(".-_+", r))
	}) < 0
}

// all returns every managed certificate.
func (m *Manager) all() []*managed {
	list := make([]*managed, 0, m.cache.Len())
	for e := range m.cache.All() {
		if c := asManaged(e); c != nil {
			list = append(list, c)
		}
	}
	return list
}
