package dnsprovider_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/dnsprovider"
	"github.com/certwright/certwright/internal/dnsprobe"
	"github.com/libdns/libdns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeWriter is a provider that can only append and delete. Its zero behaviour is
// what libdns demands.
type fakeWriter struct {
	mu    sync.Mutex // guards the fields below
	zones map[string][]libdns.TXT
	calls []string

	sets        bool                                         // an append replaces what was at the name
	single      bool                                         // only the last value of a name is kept
	rejects     bool                                         // an append of what is there fails
	wipes       bool                                         // a delete removes all at the name
	idle        bool                                         // a delete does nothing and says nil
	ids         bool                                         // records have one, and are deleted by it
	quiet       bool                                         // nothing is returned
	odd         bool                                         // absolute names and quotes are returned, and records that are nil
	ttl         time.Duration                                // what every TTL becomes; 0: it stays
	before      func(ctx context.Context, call string) error // called first, without the lock
	changed     func(zone string, records []libdns.TXT)      // called after a change
	afterAppend error
	last        int // ID
}

func newWriter(zones ...string) *fakeWriter {
	w := &fakeWriter{zones: map[string][]libdns.TXT{}}
	for _, z := range zones {
		w.zones[z+"."] = nil
	}
	return w
}

func (w *fakeWriter) begin(ctx context.Context, format string, args ...any) error {
	call := fmt.Sprintf(format, args...)
	w.mu.Lock()
	w.calls = append(w.calls, call)
	before := w.before
	w.mu.Unlock()
	if before != nil {
		return before(ctx, call)
	}
	return ctx.Err()
}

func (w *fakeWriter) zone(zone string) error {
	if _, ok := w.zones[zone]; !ok {
		return fmt.Errorf("no zone %q in this account", zone)
	}
	return nil
}

func (w *fakeWriter) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	if err := w.begin(ctx, "append %s %s", zone, texts(recs)); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.zone(zone); err != nil {
		return nil, err
	}
	replaced := map[string]bool{}
	recs = slices.Clone(recs)
	for i, r := range recs {
		t := r.(libdns.TXT)
		if w.ttl > 0 {
			t.TTL = w.ttl
		}
		same := func(o libdns.TXT) bool { return o.Name == t.Name && (o.Text == t.Text || !w.rejects) }
		if w.rejects && slices.ContainsFunc(w.zones[zone], same) {
			return nil, errors.New("record already exists")
		}
		if w.single || w.sets && !replaced[t.Name] {
			w.zones[zone] = slices.DeleteFunc(w.zones[zone], func(o libdns.TXT) bool { return o.Name == t.Name })
			replaced[t.Name] = true
		}
		if w.ids {
			w.last++
			t.ProviderData = w.last
			recs[i] = t
		}
		w.zones[zone] = append(w.zones[zone], t)
	}
	w.tell(zone)
	if w.afterAppend != nil {
		return nil, w.afterAppend
	}
	return w.returned(zone, recs), nil
}

func (w *fakeWriter) tell(zone string) {
	if w.changed != nil {
		w.changed(zone, slices.Clone(w.zones[zone]))
	}
}

func (w *fakeWriter) returned(zone string, recs []libdns.Record) []libdns.Record {
	switch {
	case w.quiet:
		return nil
	case w.odd:
		var out []libdns.Record
		for _, r := range recs {
			rr := r.RR()
			out = append(out, nil, libdns.RR{Name: rr.Name + "." + strings.TrimSuffix(zone, "."), Type: "txt", TTL: rr.TTL, Data: `"` + rr.Data + `"`})
		}
		return out
	}
	return recs
}

func (w *fakeWriter) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	if err := w.begin(ctx, "delete %s %s", zone, texts(recs)); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.zone(zone); err != nil {
		return nil, err
	}
	var gone []libdns.Record
	if !w.idle {
		for _, r := range recs {
			rr := r.RR()
			w.zones[zone] = slices.DeleteFunc(w.zones[zone], func(o libdns.TXT) bool {
				if t, ok := r.(libdns.TXT); ok && t.ProviderData != nil && t.ProviderData != o.ProviderData {
					return false
				}
				hit := o.Name == rr.Name && (o.Text == rr.Data && (rr.TTL == 0 || rr.TTL == o.TTL) || w.wipes)
				if hit && o.Text == rr.Data {
					gone = append(gone, o)
				}
				return hit
			})
		}
		w.tell(zone)
	}
	return w.returned(zone, gone), nil
}

// put sets records as somebody else does.
func (w *fakeWriter) put(zone, name string, values ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range values {
		w.zones[zone+"."] = append(w.zones[zone+"."], libdns.TXT{Name: name, TTL: time.Hour, Text: v})
	}
	w.tell(zone + ".")
}

// records are "name value" of a zone, sorted.
func (w *fakeWriter) records(zone string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := []string{}
	for _, t := range w.zones[zone+"."] {
		out = append(out, t.Name+" "+t.Text)
	}
	slices.Sort(out)
	return out
}

// made are the calls that began with a word, or all.
func (w *fakeWriter) made(word string) (calls []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		if strings.HasPrefix(c, word) {
			calls = append(calls, c)
		}
	}
	return calls
}

func texts(recs []libdns.Record) string {
	var out []string
	for _, r := range recs {
		out = append(out, r.RR().Name+"="+r.RR().Data)
	}
	return strings.Join(out, ",")
}

// fakeGetter can read zones too.
type fakeGetter struct {
	*fakeWriter
	refuses bool // as a server that allows no transfer
}

func (g *fakeGetter) GetRecords(ctx context.Context, zone string) ([]libdns.Record, error) {
	if err := g.begin(ctx, "get %s", zone); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refuses {
		return nil, errors.New("transfer refused")
	}
	if err := g.zone(zone); err != nil {
		return nil, err
	}
	recs := []libdns.Record{libdns.NS{Name: "@", Target: "ns1." + zone}}
	for _, t := range g.zones[zone] {
		recs = append(recs, t)
	}
	if g.odd {
		return g.returned(zone, recs), nil
	}
	return recs, nil
}

// fakeLister lists zones, and cannot read them.
type fakeLister struct {
	*fakeWriter
	list []string // what the first page has
	fail error
}

func (l *fakeLister) ListZones(ctx context.Context) (zones []libdns.Zone, err error) {
	if err := l.begin(ctx, "list"); err != nil {
		return nil, err
	}
	for _, z := range l.list {
		zones = append(zones, libdns.Zone{Name: z})
	}
	return zones, l.fail
}

// fakeDNS answers as DNS servers do that show at once what a provider has.
type fakeDNS struct {
	provider *fakeWriter
	cnames   map[string]string
	zones    []string // beside the provider's
	look     func(zone, name string) ([]dnsprobe.Answer, error)

	mu    sync.Mutex
	looks []string
}

func (d *fakeDNS) Follow(_ context.Context, name string) ([]string, error) {
	path := []string{name}
	for next, ok := d.cnames[name]; ok; next, ok = d.cnames[name] {
		if next == "" {
			return nil, fmt.Errorf("following the CNAMEs %s: SERVFAIL", name)
		}
		path, name = append(path, next), next
	}
	return path, nil
}

func (d *fakeDNS) Zone(_ context.Context, name string) (string, error) {
	d.provider.mu.Lock()
	defer d.provider.mu.Unlock()
	for n := name; n != ""; _, n, _ = strings.Cut(n, ".") {
		if _, ok := d.provider.zones[n+"."]; ok || slices.Contains(d.zones, n) {
			return n, nil
		}
	}
	return "", fmt.Errorf("finding the zone of %q: SERVFAIL", name)
}

func (d *fakeDNS) Look(_ context.Context, zone, name string) ([]dnsprobe.Answer, error) {
	d.mu.Lock()
	d.looks = append(d.looks, zone+" "+name)
	d.mu.Unlock()
	if d.look != nil {
		return d.look(zone, name)
	}
	return []dnsprobe.Answer{d.shown(zone, name)}, nil
}

func (d *fakeDNS) lookedAt() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.looks)
}

// shown is the answer of a server that shows what the provider has.
func (d *fakeDNS) shown(zone, name string) dnsprobe.Answer {
	d.provider.mu.Lock()
	defer d.provider.mu.Unlock()
	a := dnsprobe.Answer{Server: "ns1." + zone + " (192.0.2.1:53)"}
	for _, t := range d.provider.zones[zone+"."] {
		if libdns.AbsoluteName(t.Name, zone) == name {
			a.Values = append(a.Values, t.Text)
		}
	}
	return a
}

// newSolver is a Solver with a provider over w, and the DNS that shows it.
func newSolver(w *fakeWriter, p dnsprovider.Provider) (*dnsprovider.Solver, *fakeDNS) {
	d := &fakeDNS{provider: w, cnames: map[string]string{}}
	s := &dnsprovider.Solver{Provider: p}
	s.Probe(d)
	return s, d
}
