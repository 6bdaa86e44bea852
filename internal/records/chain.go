package records

import (
	"crypto/x509"
	"sync"
)

// shared is what bundles have in common: one copy of it is kept. The zero shared
// is ready for use.
type shared struct {
	mu      sync.Mutex // guards both maps
	tails   map[string]*tail
	origins map[origin]*origin
}

// origin says where bundles come from.
type origin struct{ CA, Account, Profile string }

// tail is the certificates behind the leaf. It is not changed.
type tail struct {
	text  string // PEM
	der   [][]byte
	first func() (*x509.Certificate, error) // parsed once
}
