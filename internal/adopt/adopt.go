// Package adopt reads the certificates and accounts that other ACME clients
// left behind: CertMagic and Caddy, autocert, lego and certbot. It reads only.
//
// What it returns was checked: a chain that holds together, its key, the names
// asked for and the clock. A file that cannot be used is reported by its name
// and passed over; the rest goes on. No error holds anything of a private key.
package adopt

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/certpem"
)

// Tree is a store to be read. Keys are slash-separated paths from its root.
// A Tree is safe for concurrent use.
type Tree interface {
	// Load returns a value. When there is none the error satisfies
	// errors.Is(err, fs.ErrNotExist).
	Load(ctx context.Context, key string) ([]byte, error)

	// List returns the full keys of all values below prefix, component-wise.
	// When there are none the list is empty and the error nil.
	List(ctx context.Context, prefix string) ([]string, error)
}

// Query says which certificates are looked for.
type Query struct {
	Names []string  // normalised; a certificate has to cover all of them
	CAs   []string  // directory URLs of the CAs in use, the preferred first
	Now   time.Time // a certificate that has expired by then is reported, not returned
}

// Certificate is a certificate that can be taken over.
type Certificate struct {
	File    string // where the chain was found
	Chain   []*x509.Certificate
	Key     crypto.Signer
	CA      string       // directory URL; empty when the store does not tell
	Account string       // account URL; empty when the store does not tell
	URL     string       // of the certificate at the CA; empty when the store does not tell
	Info    *RenewalInfo // nil when the store has none
}

// RenewalInfo is a CA's suggestion for a certificate (RFC 9773 §4.2) as the
// store has it.
type RenewalInfo struct {
	Start, End     time.Time
	ExplanationURL string
	Refresh        time.Time // when to ask the CA again; zero when the store does not tell
}

// Account is an account at a CA that can be taken over.
type Account struct {
	File     string // where the key was found
	CA       string // directory URL; empty when the store does not tell
	Location string // account URL; empty when the store does not tell
	Contact  []string
	EABKeyID string // key ID of the external account binding; empty without one
	Key      crypto.Signer
}

// FileError says that a file could not be used.
type FileError struct {
	File       string
	Unreadable bool // the store failed; false: the file holds nothing of use
	Err        error
}

// Error implements error.
func (e *FileError) Error() string { return fmt.Sprintf("reading %q: %v", e.File, e.Err) }

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

// Reader reads one store. It is safe for concurrent use. What it has listed it
// keeps for a minute, so that a thousand names do not list a store a thousand
// times.
type Reader interface {
	// Certificates returns the certificates that could be taken over, the best
	// first, and what could not be used on the way.
	Certificates(ctx context.Context, q Query) ([]Certificate, []*FileError)

	// Accounts returns the accounts at the CA with a directory URL, in no
	// particular order, and what could not be used on the way.
	Accounts(ctx context.Context, ca string) ([]Account, []*FileError)
}

// Layout makes a Reader of a tree that one program wrote. ca is the directory
// URL of the CA that a layout does not name itself; only autocert's does not.
//
// Layouts are functions, so that a program links the code of those it names.
type Layout func(tree Tree, ca string) Reader

// CertMagic is the [Layout] of CertMagic and of Caddy.
func CertMagic(tree Tree, _ string) Reader { return &certMagic{files: &files{tree: tree}} }

// Autocert is the [Layout] of autocert's DirCache.
func Autocert(tree Tree, ca string) Reader { return &autocert{files: &files{tree: tree}, ca: ca} }

// Lego is the [Layout] of the lego command.
func Lego(tree Tree, _ string) Reader { return &lego{files: &files{tree: tree}} }

// Certbot is the [Layout] of certbot.
func Certbot(tree Tree, _ string) Reader { return &certbot{files: &files{tree: tree}} }

// sameCA reports whether two directory URLs are one but for a slash at the end.
func sameCA(a, b string) bool {
	return strings.TrimSuffix(a, "/") == strings.TrimSuffix(b, "/")
}

// used returns a directory URL as it is among the CAs in use, and unchanged when
// it is not.
func (q Query) used(ca string) (string, bool) {
	i := slices.IndexFunc(q.CAs, func(used string) bool { return sameCA(used, ca) })
	if i < 0 {
		return ca, false
	}
	return q.CAs[i], true
}

// errTestCA is why a certificate is passed over that no client trusts.
var errTestCA = errors.New("it was issued by a CA for tests, which is not among the issuers in use")

// fromTestCA reports whether origin, a directory URL or what is left of one,
// names a CA whose certificates are for tests only.
func fromTestCA(origin string) bool {
	origin = strings.ToLower(origin)
	return strings.Contains(origin, "staging") || strings.Contains(origin, "test-api")
}

// sortBest puts the certificates first that one would take: from a CA that is
// in use, for just the names asked for, the newest.
func sortBest(certs []Certificate, q Query) {
	rank := func(c Certificate) int {
		n := 2 * slices.Index(q.CAs, c.CA)
		if n < 0 {
			n = 2 * len(q.CAs)
		}
		if len(certpem.Names(c.Chain[0])) != len(q.Names) {
			n++
		}
		return n
	}
	slices.SortStableFunc(certs, func(a, b Certificate) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return b.Chain[0].NotBefore.Compare(a.Chain[0].NotBefore)
	})
}
