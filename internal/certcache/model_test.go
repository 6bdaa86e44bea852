package certcache

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/certpem"
)

// A model is a Cache as one writes it without a thought of its costs.
type model struct {
	entries []*modelled // in the order of Add
}

type modelled struct {
	Entry
	served Served
	class  class
}

// A fakeSource has no certificate when it is broken.
type fakeSource struct{ cert *tls.Certificate }

var errBroken = errors.New("broken")

func (s fakeSource) Certificate() (*tls.Certificate, error) {
	if s.cert == nil {
		return nil, errBroken
	}
	return s.cert, nil
}

func (e *modelled) settle(now time.Time) {
	switch {
	case e.served.Source == nil:
		e.class = none
	case now.After(e.served.NotAfter):
		e.class = expired
	case now.Before(e.served.NotBefore):
		e.class = notYet
	default:
		e.class = valid
	}
}

// having returns the entries of a name, best first, those that serve nothing
// anywhere.
func (m *model) having(name string) []*modelled {
	var out []*modelled
	for _, e := range m.entries {
		if slices.Contains(e.Names, name) {
			out = append(out, e)
		}
	}
	slices.SortStableFunc(out, func(a, b *modelled) int {
		return cmp.Or(
			cmp.Compare(a.class, b.class), cmp.Compare(order(a.served.Kind), order(b.served.Kind)),
			cmp.Compare(a.Rank, b.Rank), b.served.NotBefore.Compare(a.served.NotBefore),
		)
	})
	return out
}

// best returns the best certificate for a name that has one of the classes.
func (m *model) best(name string, classes ...class) *tls.Certificate {
	for _, e := range m.having(name) {
		if !slices.Contains(classes, e.class) {
			continue
		}
		if cert, err := e.served.Source.Certificate(); err == nil {
			return cert
		}
	}
	return nil
}

func (m *model) lookup(name string) *tls.Certificate {
	_, parent, _ := strings.Cut(name, ".")
	wild := wildcard + parent
	return cmp.Or(m.best(name, valid), m.best(wild, valid), m.best(name, notYet, expired), m.best(wild, notYet, expired))
}

func (m *model) own(name string) *tls.Certificate { return m.best(name, valid, notYet, expired) }

func (m *model) known(name string) bool {
	_, parent, _ := strings.Cut(name, ".")
	return len(m.having(name))+len(m.having(wildcard+parent)) > 0
}

// sole returns what Sole and SoleIP are to return.
func (m *model) sole() (sole, soleIP *tls.Certificate) {
	sets, ips := make(map[string]string), make(map[string]bool)
	for _, e := range m.entries {
		if e.class == none {
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
		r := rand.New(rand.NewPCG(seed, 1))
		p := pair{rand: r, maxHot: r.IntN(4), model: &model{}, at: now, names: modelNames[:1+r.IntN(len(modelNames))]}
		p.cache = New(p.maxHot)
		for step := range 200 {
			what := p.change()
			if err := p.compare(); err != nil {
				t.Fatalf("seed %d, step %d, after %s: %v", seed, step, what, err)
			}
		}
		for _, e := range p.model.entries {
			p.cache.Remove(p.at, &e.Entry)
		}
		checkEmpty(t, p.cache)
	}
}

// A pair is a Cache and the model, to which the same is done.
type pair struct {
	cache  *Cache
	model  *model
	rand   *rand.Rand
	names  []string
	at     time.Time
	maxHot int
}

// change does something and says what.
func (p *pair) change() string {
	if p.rand.IntN(3) == 0 {
		p.at = p.at.Add(time.Duration(p.rand.IntN(30)) * time.Minute)
	}
	op := p.rand.IntN(12)
	if len(p.model.entries) == 0 || op < 2 && len(p.model.entries) < 12 {
		p.add()
		return "Add"
	}
	e := p.model.entries[p.rand.IntN(len(p.model.entries))]
	switch {
	case op < 4:
		p.remove()
		return "Remove"
	case op < 6:
		e.settle(p.at)
		p.cache.Refresh(p.at, &e.Entry)
		return "Refresh"
	}
	e.served = Served{
		NotBefore: p.at.Add(time.Duration(p.rand.IntN(60)-40) * time.Minute), NotAfter: p.at.Add(time.Duration(p.rand.IntN(60)-10) * time.Minute),
		Kind: certpem.KeyKind(p.rand.IntN(4)),
	}
	switch p.rand.IntN(8) {
	case 0:
	case 1:
		e.served.Source = fakeSource{}
	default:
		e.served.Source = fakeSource{&tls.Certificate{OCSPStaple: []byte{1}}}
	}
	e.settle(p.at)
	p.cache.Serve(p.at, &e.Entry, e.served)
	return "Serve"
}

func (p *pair) add() {
	var batch []*Entry
	for range 1 + p.rand.IntN(3) {
		e := &modelled{Entry: Entry{Rank: uint8(p.rand.IntN(2))}}
		for _, i := range p.rand.Perm(len(p.names))[:1+p.rand.IntN(min(3, len(p.names)))] {
			e.Names = append(e.Names, p.names[i])
		}
		p.model.entries, batch = append(p.model.entries, e), append(batch, &e.Entry)
	}
	p.cache.Add(batch...)
}

func (p *pair) remove() {
	var batch []*Entry
	var gone []*modelled
	for range 1 + p.rand.IntN(2) {
		e := p.model.entries[p.rand.IntN(len(p.model.entries))]
		gone, batch = append(gone, e), append(batch, &e.Entry)
	}
	p.model.entries = slices.DeleteFunc(p.model.entries, func(e *modelled) bool { return slices.Contains(gone, e) })
	for _, e := range gone {
		for _, name := range e.Names {
			for _, stays := range p.model.having(name) {
				stays.settle(p.at)
			}
		}
	}
	p.cache.Remove(p.at, batch...)
}

// compare asks both the same.
func (p *pair) compare() error {
	c, m := p.cache, p.model
	for _, name := range append([]string{"www.a.example", "d.test", "www.c.test", "d.example"}, p.names...) {
		if strings.HasPrefix(name, wildcard) {
			continue
		}
		if c.Lookup(name, nil) != m.lookup(name) || known(c, name) != m.known(name) {
			return fmt.Errorf("%s: Lookup %v, known %v", name, c.Lookup(name, nil) == m.lookup(name), known(c, name))
		}
	}
	for _, name := range p.names {
		got, want := c.Entries(name), m.having(name)
		if len(got) != len(want) || slices.ContainsFunc(want, func(e *modelled) bool { return !slices.Contains(got, &e.Entry) }) {
			return fmt.Errorf("%s: %d entries; want %d, or others", name, len(got), len(want))
		}
	}
	if sole, soleIP := m.sole(); c.Sole() != sole || c.SoleIP() != soleIP {
		return fmt.Errorf("Sole as wanted: %v, SoleIP: %v", c.Sole() == sole, c.SoleIP() == soleIP)
	}
	for _, e := range m.entries {
		if e.Serving() != (e.class != none) {
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
