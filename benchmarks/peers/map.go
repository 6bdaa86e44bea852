package peers

import (
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/benchmarks/corpus"
)

// A Map is the limit of a look-up: a plain map behind an atomic pointer, and one
// reading of the clock.
type Map struct {
	certs atomic.Pointer[map[string]mapped]
	zones atomic.Pointer[map[string]mapped] // by what follows "*."
}

// mapped is a certificate in a Map, and until when it is valid, in Unix seconds.
type mapped struct {
	cert *tls.Certificate
	end  int64
}

func newMapped(cert *tls.Certificate) mapped { return mapped{cert, cert.Leaf.NotAfter.Unix()} }

var errUnknown = errors.New("unknown name")

// NewMap returns a Map of all certificates of c.
func NewMap(c *corpus.Corpus) (*Map, error) {
	certs, zones := map[string]mapped{}, map[string]mapped{}
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
			zones[zone] = newMapped(cert)
		} else {
			certs[p.Name] = newMapped(cert)
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
	certs := map[string]mapped{}
	for i, names := range s.Names {
		cert, err := s.Pairs[i].Certificate()
		if err != nil {
			return nil, nil, err
		}
		for _, name := range names {
			certs[strings.Clone(name)] = newMapped(cert)
		}
	}
	var m Map
	m.certs.Store(&certs)
	return &m, slices.Concat(s.Names...), nil
}

// Exact looks for the name.
func (m *Map) Exact(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := time.Now().Unix()
	if c := (*m.certs.Load())[hello.ServerName]; now < c.end {
		return c.cert, nil
	}
	return nil, errUnknown
}

// Wildcard looks for the name and then for its zone.
func (m *Map) Wildcard(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := time.Now().Unix()
	if c := (*m.certs.Load())[hello.ServerName]; now < c.end {
		return c.cert, nil
	}
	_, zone, _ := strings.Cut(hello.ServerName, ".")
	if c := (*m.zones.Load())[zone]; now < c.end {
		return c.cert, nil
	}
	return nil, errUnknown
}

// Upper looks for the name in lower case.
func (m *Map) Upper(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := time.Now().Unix()
	if c := (*m.certs.Load())[strings.ToLower(hello.ServerName)]; now < c.end {
		return c.cert, nil
	}
	return nil, errUnknown
}
