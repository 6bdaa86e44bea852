package dnsprovider

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/libdns/libdns"
)

// found is a TXT record that a provider has told of.
type found struct {
	record libdns.Record // as the provider gave it, with its name made relative
	value  string
	ttl    time.Duration
}

// contents are the TXT records of a zone, by absolute name, and how many records of
// any type there are.
type contents struct {
	txt     map[fqdn][]found
	records int
}

// isNil reports whether there is no provider, or a nil pointer that poses as one.
func isNil(p Provider) bool {
	if p == nil {
		return true
	}
	switch v := reflect.ValueOf(p); v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Func, reflect.Chan, reflect.Slice:
		return v.IsNil()
	}
	return false
}

// providerName is what errors call a provider: what its String method says, else the
// package of its type. Its fields hold secrets and are never looked at.
func providerName(p Provider) (name string) {
	if isNil(p) {
		return "no provider"
	}
	typ := strings.TrimLeft(reflect.TypeOf(p).String(), "*")
	name, _, ok := strings.Cut(typ, ".")
	if !ok || strings.ContainsAny(name, " {") {
		name = "the DNS provider"
	}
	if s, ok := p.(fmt.Stringer); ok {
		defer func() { _ = recover() }()
		if said := s.String(); said != "" {
			name = clip(said)
		}
	}
	return name
}

// txt makes a TXT record of what a provider returned, or reports that it is none. It
// has the relative name and the unquoted text that every provider must understand;
// a type of the provider's own stays what it is, as its deleting may need that.
func (z zone) txt(rec libdns.Record) (name fqdn, f found, ok bool) {
	rr, err := parts(rec)
	if err != nil || !strings.EqualFold(rr.Type, "TXT") {
		return "", found{}, false
	}
	name = z.absolute(rr.Name)
	p, held := at(z, name)
	if !held {
		return "", found{}, false
	}
	t := libdns.TXT{Name: string(p.rel), TTL: rr.TTL, Text: unquoted(rr.Data)}
	f = found{record: t, value: t.Text, ttl: t.TTL}
	switch rec := rec.(type) {
	case libdns.RR:
	case libdns.TXT:
		t.ProviderData = rec.ProviderData
		f.record = t
	case *libdns.TXT:
		t.ProviderData = rec.ProviderData
		f.record = t
	default:
		f.record = rec
	}
	return name, f, true
}

// parts are what a record consists of; one that is nil has none.
func parts(rec libdns.Record) (rr libdns.RR, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a record is none: %v", p)
		}
	}()
	return rec.RR(), nil
}

// unquoted takes off the quotes of a provider that gives a text as zone files have
// it. No value of ours begins with a quote.
func unquoted(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	return strings.ReplaceAll(s[1:len(s)-1], `" "`, "")
}

// read returns what the provider says is in a zone. It fails for a provider that
// cannot say.
func (s *Solver) read(ctx context.Context, z zone) (contents, error) {
	getter, ok := s.Provider.(libdns.RecordGetter)
	if !ok {
		return contents{}, fmt.Errorf("%s does not tell which records there are", providerName(s.Provider))
	}
	what := fmt.Sprintf("reading zone %q", z)
	reading, leave := s.reading(z)
	defer leave()
	c, err := reading.ask(ctx, func(ctx context.Context) (contents, error) {
		if s.calls.hangs(what) {
			return contents{}, errHung
		}
		return do(ctx, &s.calls, what, callLimit, func(ctx context.Context) (contents, error) {
			records, err := getter.GetRecords(ctx, z.dotted())
			if err != nil {
				return contents{}, err
			}
			c := contents{txt: map[fqdn][]found{}, records: len(records)}
			for _, rec := range records {
				if name, f, ok := z.txt(rec); ok {
					c.txt[name] = append(c.txt[name], f)
				}
			}
			return c, nil
		})
	})
	if err != nil {
		return contents{}, fmt.Errorf("%s with %s: %w", what, providerName(s.Provider), err)
	}
	return c, nil
}

// reading is what all share who read a zone, for as long as somebody does.
func (s *Solver) reading(z zone) (r *reading, leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readings == nil {
		s.readings = map[zone]*reading{}
	}
	if r = s.readings[z]; r == nil {
		r = new(reading)
		s.readings[z] = r
	}
	r.users++
	return r, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.users--; r.users == 0 {
			delete(s.readings, z)
		}
	}
}

type reading struct {
	shared[contents]
	users int // guarded by Solver.mu
}

// listKept is for how long a list of zones is kept, and that there was none.
const listKept = time.Minute

// zoneList is what the provider said last of its zones.
type zoneList struct {
	zones []zone
	at    time.Time // zero: it was not asked yet
}

// listed returns the longest zone of the provider's list that holds name. A list may
// be cut at a page, so that none says nothing; a list that fails is a warning.
func (s *Solver) listed(ctx context.Context, name fqdn, warn func(error)) (longest zone, ok bool) {
	lister, can := s.Provider.(libdns.ZoneLister)
	if !can {
		return "", false
	}
	zones, _ := s.listing.ask(ctx, func(ctx context.Context) ([]zone, error) {
		zones, err := s.list(ctx, lister)
		if err != nil && ctx.Err() == nil { // told once, by one of those who ask
			warn(fmt.Errorf("listing the zones of %s: %w", providerName(s.Provider), err))
		}
		return zones, err
	})
	for _, z := range zones {
		if z.holds(name) && len(z) > len(longest) {
			longest = z
		}
	}
	return longest, longest != ""
}

func (s *Solver) list(ctx context.Context, lister libdns.ZoneLister) ([]zone, error) {
	s.mu.Lock()
	kept := s.zones
	s.mu.Unlock()
	if !kept.at.IsZero() && time.Since(kept.at) < listKept {
		return kept.zones, nil
	}
	const what = "listing its zones"
	var zones []zone
	err := errHung
	if !s.calls.hangs(what) {
		zones, err = do(ctx, &s.calls, what, listLimit, func(ctx context.Context) (zones []zone, err error) {
			list, err := lister.ListZones(ctx)
			for _, z := range list {
				if name, bad := parseName(z.Name); bad == nil {
					zones = append(zones, zone(name))
				}
			}
			return zones, err
		})
	}
	if ctx.Err() == nil { // else nobody waits for it any more
		s.mu.Lock()
		s.zones = zoneList{zones: zones, at: time.Now()}
		s.mu.Unlock()
	}
	return zones, err
}
