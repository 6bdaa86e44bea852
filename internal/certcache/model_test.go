package certcache_test

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certwright/certwright/internal/certcache"
)

// A model is a Cache as one writes it without a thought of its costs.
type model struct {
	entries []*modelled // in the order of Add
}

type modelled struct {
	certcache.Entry
	Rank        uint8
	cert        *tls.Certificate // nil when the source fails
	serves      bool
	from, until int64
}

func (e *modelled) isValid() bool {
	now := time.Now().Unix()
	return e.from <= now && now < e.until
}

func (e *modelled) ended() int {
	if time.Now().Unix() >= e.until {
		return 1
	}
	return 0
}

// having returns the entries of a name in the order of Add.
func (m *model) having(name string) []*modelled {
	return slices.DeleteFunc(slices.Clone(m.entries), func(e *modelled) bool { return !slices.Contains(e.Names, name) })
}

// best returns the best certificate for a name that is valid or not.
func (m *model) best(name string, isValid bool) *tls.Certificate {
	list := slices.DeleteFunc(m.having(name), func(e *modelled) bool { return !e.serves || e.cert == nil || e.isValid() != isValid })
	if len(list) == 0 {
		return nil
	}
	return slices.MinFunc(list, func(a, b *modelled) int {
		return cmp.Or(cmp.Compare(a.ended(), b.ended()), cmp.Compare(a.Rank, b.Rank), cmp.Compare(b.from, a.from))
	}).cert
}

func (m *model) find(name string) *tls.Certificate {
	_, parent, _ := strings.Cut(name, ".")
	return cmp.Or(m.best(name, true), m.best("*."+parent, true), m.best(name, false), m.best("*."+parent, false))
}

// isValid reports whether a certificate is valid now.
func (m *model) isValid(cert *tls.Certificate) bool {
	return cert != nil && slices.ContainsFunc(m.entries, func(e *modelled) bool { return e.cert == cert && e.isValid() })
}

func (m *model) own(name string) *tls.Certificate {
	return cmp.Or(m.best(name, true), m.best(name, false))
}

func (m *model) known(name string) bool {
	_, parent, _ := strings.Cut(name, ".")
	return len(m.having(name))+len(m.having("*."+parent)) > 0
}

// sole returns what Sole and SoleIP are to return.
func (m *model) sole() (sole, soleIP *tls.Certificate) {
	sets, ips := make(map[string]string), make(map[string]bool)
	for _, e := range m.entries {
		if !e.serves {
			continue
		}
		sets[strings.Join(slices.Sorted(slices.Values(e.Names)), " ")] = e.Names[0]
		for _, name := range e.Names {
			if strings.HasPrefix(name, "192.") {
				ips[name] = true
			}
		}
	}
	for _, name := range sets {
		if len(sets) == 1 {
			sole = m.own(name)
		}
	}
	for name := range ips {
		if len(ips) == 1 {
			soleIP = m.own(name)
		}
	}
	return sole, soleIP
}

var modelNames = []string{"a.example", "192.0.2.1", "*.example", "b.example", "*.a.example", "x.a.example", "192.0.2.2", "example", "c.test"}

func TestAgreesWithModel(t *testing.T) {
	seeds := uint64(100)
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) { agree(t, seed) })
	}
}

func agree(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	p := pair{rand: r, maxHot: r.IntN(4), model: &model{}, names: modelNames[:1+r.IntN(len(modelNames))]}
	p.cache = certcache.New(p.maxHot)
	for step := range 200 {
		what := p.change()
		if err := p.compare(); err != nil {
			t.Fatalf("seed %d, step %d, after %s: %v", seed, step, what, err)
		}
	}
	for _, e := range p.model.entries {
		p.cache.Remove(&e.Entry)
	}
	checkEmpty(t, p.cache)
}

// A pair is a Cache and the model, to which the same is done.
type pair struct {
	cache  *certcache.Cache
	model  *model
	rand   *rand.Rand
	names  []string
	maxHot int
}

// change does something and says what.
func (p *pair) change() string {
	if p.rand.IntN(2) == 0 {
		time.Sleep(time.Duration(p.rand.IntN(1800)) * time.Second)
	}
	op := p.rand.IntN(12)
	switch {
	case len(p.model.entries) == 0, op < 2 && len(p.model.entries) < 12:
		p.add()
		return "Add"
	case op < 4:
		p.remove()
		return "Remove"
	case op < 6:
		return "nothing but time"
	}
	p.serve(p.model.entries[p.rand.IntN(len(p.model.entries))])
	return "Serve"
}

func (p *pair) serve(e *modelled) {
	from, until := time.Duration(p.rand.IntN(60)-40)*time.Minute, time.Duration(p.rand.IntN(60)-10)*time.Minute
	s := &certcache.Served{NotBefore: time.Now().Add(from).Unix(), End: time.Now().Add(until).Unix(), Rank: e.Rank, Source: failing{errBroken}}
	e.from, e.until, e.serves, e.cert = s.NotBefore, s.End, true, nil
	switch p.rand.IntN(8) {
	case 0:
		e.serves = false
		p.cache.Serve(&e.Entry, nil)
		return
	case 1:
	default:
		e.cert = &tls.Certificate{OCSPStaple: []byte{1}}
		s.Source = parsed{e.cert}
	}
	p.cache.Serve(&e.Entry, s)
}

func (p *pair) add() {
	var batch []*certcache.Entry
	for range 1 + p.rand.IntN(3) {
		e := &modelled{Rank: uint8(p.rand.IntN(2))}
		for _, i := range p.rand.Perm(len(p.names))[:1+p.rand.IntN(min(3, len(p.names)))] {
			e.Names = append(e.Names, p.names[i])
		}
		p.model.entries, batch = append(p.model.entries, e), append(batch, &e.Entry)
	}
	p.cache.Add(batch...)
}

func (p *pair) remove() {
	var batch []*certcache.Entry
	for range 1 + p.rand.IntN(2) {
		batch = append(batch, &p.model.entries[p.rand.IntN(len(p.model.entries))].Entry)
	}
	p.model.entries = slices.DeleteFunc(p.model.entries, func(e *modelled) bool { return slices.Contains(batch, &e.Entry) })
	p.cache.Remove(batch...)
}

// compare asks both the same.
func (p *pair) compare() error {
	c, m := p.cache, p.model
	for _, name := range append([]string{"www.a.example", "d.test", "www.c.test", "d.example"}, p.names...) {
		if strings.HasPrefix(name, "*.") {
			continue
		}
		if r, cert := c.Find(name, nil), m.find(name); r.Cert != cert || r.Valid != m.isValid(cert) || known(c, name) != m.known(name) {
			return fmt.Errorf("%s: Find as wanted: %v, valid %v, known %v", name, r.Cert == cert, r.Valid, known(c, name))
		}
	}
	for _, name := range p.names {
		got, want := c.Entries(name), m.having(name)
		if !slices.EqualFunc(got, want, func(e *certcache.Entry, w *modelled) bool { return e == &w.Entry }) {
			return fmt.Errorf("%s: %d entries; want %d, or others", name, len(got), len(want))
		}
	}
	if only, onlyIP := m.sole(); sole(c, nil) != only || soleIP(c, nil) != onlyIP {
		return fmt.Errorf("Sole as wanted: %v, SoleIP: %v", sole(c, nil) == only, soleIP(c, nil) == onlyIP)
	}
	for _, e := range m.entries {
		if e.Serving() != e.serves {
			return fmt.Errorf("Serving = %v", e.Serving())
		}
	}
	if all := slices.Collect(c.All()); len(all) != len(m.entries) || c.Len() != len(m.entries) {
		return fmt.Errorf("All has %d, Len = %d; want %d", len(all), c.Len(), len(m.entries))
	}
	if hot := c.Hot(); p.maxHot > 0 && hot > p.maxHot {
		return fmt.Errorf("%d are hot; at most %d may be", hot, p.maxHot)
	}
	return nil
}
