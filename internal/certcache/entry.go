package certcache

import (
	"crypto/tls"
	"sync/atomic"
)

// An Entry is one certificate's place in a [Cache], usually embedded in what
// keeps the certificate. Names and Owner are set before [Cache.Add] and
// not changed while the Entry is in a Cache; it must not be copied after Add,
// and is in one Cache at a time.
//
// An Entry is pending until [Cache.Serve] gives it something to serve: its
// names are known, but nothing is found for them.
type Entry struct {
	// Names are normalised (package hostname) and distinct; wildcards and IP
	// addresses are names too. They are neither copied nor sorted. An Entry
	// without names is not added.
	Names []string
	// Owner is for the owner of the Cache, which does not look at it.
	Owner any

	cell atomic.Pointer[cell] // nil until the first Add, then the same for good

	in bool // a Cache
}

// Serving reports whether e has something to serve, whether valid or not.
func (e *Entry) Serving() bool { return e.served() != nil }

func (e *Entry) served() *Served {
	if cl := e.cell.Load(); cl != nil {
		return cl.served.Load()
	}
	return nil
}

// A Source makes the parsed form of a certificate, whose Leaf should be set. It
// may be called from several goroutines. It does no I/O, since handshakes wait
// for it, and does not call the Cache.
type Source interface {
	Certificate() (*tls.Certificate, error)
}

// Served is what an [Entry] serves, usually embedded in what the owner keeps of
// the certificate. It must not be changed or copied once [Cache.Serve] has it,
// and is served by one Entry only.
type Served struct {
	// Source is not nil. When it fails it is not asked again: the certificate is
	// passed over until the Entry serves something else.
	Source Source
	// NotBefore and End, in Unix seconds, bound the time in which the certificate
	// is valid: from NotBefore on and before End, which is the earliest end in
	// its chain.
	NotBefore, End int64
	// Rank orders what is served for one name: of what is equally valid, and a
	// client supports, the lowest goes first.
	Rank uint8

	state atomic.Uint32
	hot   atomic.Pointer[tls.Certificate] // the parsed form; nil: packed; written with Cache.hotMu held
}

// The states of what is served.
const (
	idle   uint32 = iota // no hit since the last search for what can be packed
	used                 // a hit since then
	broken               // it cannot be parsed
)

// parsed returns the certificate of what is hot, and nil for others.
func (s *Served) parsed() *tls.Certificate {
	cert := s.hot.Load()
	if cert != nil && s.state.Load() == idle { // most hits write nothing
		s.state.Store(used)
	}
	return cert
}

// A class is how good it is to serve a certificate; the lowest is best.
type class uint8

const (
	valid class = iota
	notYet
	expired
)

func (s *Served) class(now int64) class {
	switch {
	case now >= s.End:
		return expired
	case now < s.NotBefore:
		return notYet
	}
	return valid
}
