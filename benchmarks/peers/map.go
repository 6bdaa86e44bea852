package peers

import (
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/certwright/certwright/benchmarks/corpus"
)

// A Map is the limit of a look-up: a map behind an atomic pointer.
type Map struct {
	certs atomic.Pointer[map[string]*tls.Certificate]
	zones atomic.Pointer[map[string]*tls.Certificate] // by what follows "*."
}

var errUnknown = errors.New("unknown name")

// NewMap returns a Map of all certificates of c.
func NewMap(c *corpus.Corpus) (*Map, error) {
	certs, zones := map[string]*tls.Certificate{}, map[string]*tls.Certificate{}
	for i := range c.N + c.Zones {
		p, err := c.Pair(i)
		if err != nil {
			return nil, err
		}
		cert, err := p.Certificate()
		if err != nil {
			return nil, err
		}
		if zone, ok := strings.CutPrefix(p.Name, "*."); ok {
			zones[zone] = cert
		} else {
			certs[p.Name] = cert
		}
	}
	var m Map
	m.certs.Store(&certs)
	m.zones.Store(&zones)
	return &m, nil
}

// NewSharedMap returns a Map of shared certificates, and their names, which share
// no memory with it: a server name never does, and a map is faster if it did.
func NewSharedMap(s *corpus.Shared) (*Map, []string, error) {
	certs := map[string]*tls.Certificate{}
	for i, names := range s.Names {
		cert, err := s.Pairs[i].Certificate()
		if err != nil {
			return nil, nil, err
		}
		for _, name := range names {
			certs[strings.Clone(name)] = cert
		}
	}
	var m Map
	m.certs.Store(&certs)
	return &m, slices.Concat(s.Names...), nil
}

// Exact looks for the name.
func (m *Map) Exact(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cert := (*m.certs.Load())[hello.ServerName]; cert != nil {
		return cert, nil
	}
	return nil, errUnknown
}

// Wildcard looks for the name and then for its zone.
func (m *Map) Wildcard(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cert := (*m.certs.Load())[hello.ServerName]; cert != nil {
		return cert, nil
	}
	_, zone, _ := strings.Cut(hello.ServerName, ".")
	if cert := (*m.zones.Load())[zone]; cert != nil {
		return cert, nil
	}
	return nil, errUnknown
}

// Upper looks for the name in lower case.
func (m *Map) Upper(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cert := (*m.certs.Load())[strings.ToLower(hello.ServerName)]; cert != nil {
		return cert, nil
	}
	return nil, errUnknown
}
