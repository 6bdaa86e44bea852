package harness

import (
	"crypto/tls"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Get is a tls.Config's GetCertificate.
type Get = func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// Lookup is what one look-up took.
type Lookup struct{ Nanoseconds, Allocs float64 }

// A Probe is a measurement of look-ups that is repeated.
type Probe struct {
	get     Get
	hello   *tls.ClientHelloInfo
	release func()
	names   []string
	cores   int
	n       int // look-ups on each core
}

// NewProbe makes sure of the answers, has what is parsed at the first use parsed,
// and finds out how many look-ups take as long as each.
func NewProbe(g Get, names []string, cores int, each time.Duration) (*Probe, error) {
	hello, release, err := Hello()
	if err != nil {
		return nil, err
	}
	p := &Probe{get: g, hello: hello, release: release, names: names, cores: cores, n: 1000}
	if err := ask(g, *hello, names, 0, len(names)); err != nil {
		release()
		return nil, err
	}
	begin := time.Now()
	if err := ask(g, *hello, names, 0, p.n); err != nil {
		release()
		return nil, err
	}
	p.n = max(p.n, int(each*time.Duration(p.n)/max(time.Since(begin), 1)))
	return p, nil
}

// Close ends the handshake that the ClientHello came from.
func (p *Probe) Close() { p.release() }

// Run asks for names in turn, on some goroutines at once. The time of a look-up
// is the whole time by the look-ups of all.
func (p *Probe) Run() (Lookup, error) {
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	objects, _ := Allocations()
	begin := time.Now()
	for i := range p.cores {
		wg.Go(func() {
			if err := ask(p.get, *p.hello, p.names, i*len(p.names)/p.cores, p.n); err != nil {
				failed.Store(&err)
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	after, _ := Allocations()
	if err := failed.Load(); err != nil {
		return Lookup{}, *err
	}
	total := float64(p.n * p.cores)
	// What the goroutines and the counting allocate is some ten objects in all.
	return Lookup{Nanoseconds: float64(took) / total, Allocs: math.Floor(float64(after-objects)/total*50) / 50}, nil
}

// ask makes n look-ups, from the name at first on.
func ask(g Get, hello tls.ClientHelloInfo, names []string, first, n int) error {
	i := first
	for range n {
		hello.ServerName = names[i]
		if i++; i == len(names) {
			i = 0
		}
		cert, err := g(&hello)
		if err != nil {
			return fmt.Errorf("asking for %q: %w", hello.ServerName, err)
		}
		if cert == nil {
			return fmt.Errorf("asking for %q: no certificate", hello.ServerName)
		}
	}
	return nil
}

// Shuffle puts names into an order that is the same each time, and returns them.
func Shuffle(names []string) []string {
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return names
}
