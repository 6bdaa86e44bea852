// Package adopt finds the certificates and accounts that other ACME clients
// stored: CertMagic and Caddy, autocert, lego and certbot. It reads only.
//
// A program names what it moves from in certwright's Config:
//
//	Adopt: []adopt.Source{adopt.Certbot("/etc/letsencrypt")}
//
// What is found was checked: the chain holds together and is for the key and the
// names, it has not expired, and it is not for tests only. What cannot be used
// is told by the name of its file and passed over; the rest goes on. A program
// links the code of those sources only that it calls.
package adopt

import (
	"context"
	"fmt"
	"time"
)

// Source is what another program stored. It is never written to. A Source is
// safe for concurrent use.
//
// The sources of this package keep what they have listed for a minute, so that a
// thousand names do not list a store a thousand times.
type Source interface {
	// String says which program and which folder, for logs.
	String() string

	// Find returns all pairs that can be used and cover each of names, the best
	// first: one for just these names before one for more of them, and a newer
	// one before an older. Names are in lower case, with A-labels, "*." in front
	// of a wildcard, and IP addresses in canonical text. Without names there is
	// nothing to find.
	//
	// Finding nothing is no error. The error is a [*FileError], or several joined
	// by errors.Join, which say what was passed over; any other says that the
	// source could not be read. Beside pairs it is a warning. Without pairs it is
	// one too, unless the source could not be read: then there may be some.
	Find(ctx context.Context, names []string) ([]Pair, error)

	// Account returns the account at the CA with a directory URL, nil when there
	// is none. Its errors are those of Find: beside an account they are warnings.
	Account(ctx context.Context, directory string) (*Account, error)
}

// Pair is a certificate with its key. It prints without the key, unless it lies
// in an unexported field.
type Pair struct {
	File    string // where the chain was found, within the source
	CertPEM string // the chain, the leaf first, without a root
	KeyPEM  string `json:"-"` // the private key, in PKCS #8

	CA      string       // directory URL; empty when the source does not tell
	Account string       // account URL; empty when the source does not tell
	URL     string       // of the certificate at the CA (RFC 8555 §7.4.2); empty when the source does not tell
	Info    *RenewalInfo // nil when the source has none
}

// Format implements [fmt.Formatter]. It prints no key whatever the verb.
func (p Pair) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "certificate {file: %q, ca: %q, url: %q}", p.File, p.CA, p.URL)
}

// RenewalInfo is a CA's suggestion for a certificate (RFC 9773 §4.2).
type RenewalInfo struct {
	Start, End     time.Time // the suggested window
	ExplanationURL string    // empty when the CA gave none
	Refresh        time.Time // when to ask the CA again; zero when the source does not tell
}

// Account is an account at a CA. It prints without the key, unless it lies in an
// unexported field.
type Account struct {
	File      string   // where the key was found, within the source
	Directory string   // directory URL of the CA
	Location  string   // account URL (RFC 8555 §7.3); empty when the source does not tell
	Contact   []string // as in RFC 8555 §7.1.2, such as "mailto:me@example.com"
	EABKeyID  string   // key ID of the external account binding (RFC 8555 §7.3.4); empty when the source tells of none
	KeyPEM    string   `json:"-"` // the private key, in PKCS #8

	// Others are further accounts at the same CA, for a caller that prefers one
	// with a certain contact or binding. None of them has Others.
	Others []Account
}

// Format implements [fmt.Formatter]. It prints no key whatever the verb.
func (a Account) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "account {file: %q, directory: %q, location: %q}", a.File, a.Directory, a.Location)
}

// FileError says that a file, or a folder, could not be used.
type FileError struct {
	File       string // within the source
	Unreadable bool   // the source failed and may hold something of use; false: it holds nothing of use there
	Err        error  // never nil; holds nothing of a private key
}

// Error names the file and the cause.
func (e *FileError) Error() string { return fmt.Sprintf("reading %q: %v", e.File, e.Err) }

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

// CertMagic is the Source of the folder of CertMagic or Caddy, which is often
// ~/.local/share/certmagic or ~/.local/share/caddy. The folder may be missing,
// which Find and Account tell. A "~" is not expanded.
func CertMagic(dir string) Source {
	f := inFolder("certmagic", dir)
	return &source{f, &certMagic{f}}
}

// CertMagicOn is like [CertMagic] for a store that is not a folder. It fails to
// find anything when r is nil.
func CertMagicOn(r Reader) Source {
	f := newFiles("certmagic", r)
	return &source{f, &certMagic{f}}
}

// Autocert is the Source of the folder of a DirCache of
// golang.org/x/crypto/acme/autocert. directory is the directory URL of the CA
// that autocert used, which its files do not tell; empty means Let's Encrypt.
// The folder may be missing, which Find and Account tell.
func Autocert(dir, directory string) Source {
	if directory == "" {
		directory = letsEncrypt
	}
	f := inFolder("autocert", dir)
	return &source{f, &autocert{f, directory}}
}

// Lego is the Source of the folder of the lego command, which is often .lego.
// The folder may be missing, which Find and Account tell.
func Lego(dir string) Source {
	f := inFolder("lego", dir)
	return &source{f, &lego{f}}
}

// Certbot is the Source of certbot's folder, which is often /etc/letsencrypt. The
// folder may be missing, which Find and Account tell.
func Certbot(dir string) Source {
	f := inFolder("certbot", dir)
	return &source{f, &certbot{f}}
}
