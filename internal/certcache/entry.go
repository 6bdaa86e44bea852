package certcache

import (
	"crypto/tls"
	"sync/atomic"
	"time"

	"github.com/certwright/certwright/internal/certpem"
)

// An Entry is one certificate's place in a [Cache], usually embedded in what
// keeps the certificate. Names, Rank and Owner are set before [Cache.Add] and
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

	front     atomic.Pointer[front] // nil until the first Add, then the same for good
	source    Source                // guarded by Cache.hotMu
	notBefore int64                 // Unix seconds, as are those of notAfter; guarded by Cache.mu, like all below but ring
	notAfter  int64
	seq       uint64 // the order of Add
	ring      uint32 // one more than the place in Cache.ring, 0 while cold; guarded by Cache.hotMu

	// Rank orders entries of one name that are equally valid and have the same
	// kind of key; the lowest wins.
	Rank uint8

	in bool // a Cache
}

// A front is what hits read of an entry. It is apart from that so that four are
// in a cache line, and the processor's cache has room for more of them.
type front struct {
	hot   atomic.Pointer[tls.Certificate] // the parsed form, nil while cold; written under Cache.hotMu
	state atomic.Uint32                   // class and, above it, kind; written under Cache.mu
	used  atomic.Uint32                   // 1 after a hit since the hand of the clock passed
}

func (f *front) class() class { return class(f.state.Load()) }

func (f *front) kind() certpem.KeyKind { return certpem.KeyKind(f.state.Load() >> 8) }

func (f *front) set(c class, k certpem.KeyKind) { f.state.Store(uint32(c) | uint32(k)<<8) }

// parsed returns the certificate of an entry that is hot, and nil for others.
func (f *front) parsed() *tls.Certificate {
	cert := f.hot.Load()
	if cert != nil && f.used.Load() == 0 { // most hits write nothing
		f.used.Store(1)
	}
	return cert
}

// Serving reports whether e has something to serve, whether valid or not.
func (e *Entry) Serving() bool {
	f := e.front.Load()
	return f != nil && f.class() != none
}

// A Source makes the parsed form of a certificate, whose Leaf should be set. It
// may be called from several goroutines. It does no I/O, since handshakes wait
// for it, and does not call the Cache.
type Source interface {
	Certificate() (*tls.Certificate, error)
}

// Served is what an [Entry] serves. With a nil Source it serves nothing.
type Served struct {
	Source Source
	// NotBefore and NotAfter bound the time in which the certificate is valid,
	// both inclusive (RFC 5280 §4.1.2.5) and in whole seconds.
	NotBefore, NotAfter time.Time
	// Kind is the kind of the certificate's key.
	Kind certpem.KeyKind
}

// order returns the same number for kinds that are equally good to serve, a lower
// one for a better kind: of certificates that are equally valid, those with ECDSA
// come first, then those with RSA.
func order(k certpem.KeyKind) int {
	switch k {
	case certpem.KindP256, certpem.KindECDSA:
		return 0
	case certpem.KindRSA:
		return 1
	}
	return 2
}

// A class is how good it is to serve an entry.
type class uint8

// The classes of what is served, from the best, come before none when one is
// taken off them.
const (
	none class = iota // nothing is served
	valid
	notYet
	expired
)

// class returns the class of an entry that is or was in a Cache.
func (e *Entry) class() class { return e.front.Load().class() }

// classAt returns the class that a serving entry has at a time; Cache.mu is held.
func (e *Entry) classAt(now time.Time) class {
	switch s := now.Unix(); {
	case s > e.notAfter, s == e.notAfter && now.Nanosecond() > 0:
		return expired
	case s < e.notBefore:
		return notYet
	}
	return valid
}
