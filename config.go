package certwright

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/mail"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/certwright/certwright/adopt"
	"github.com/certwright/certwright/internal/hostname"
	"github.com/certwright/certwright/storage"
)

// Directory URLs of CAs that speak ACME.
const (
	LetsEncrypt        = "https://acme-v02.api.letsencrypt.org/directory"
	LetsEncryptStaging = "https://acme-staging-v02.api.letsencrypt.org/directory"
)

// defaultHot is how many certificates are kept parsed when Config does not say.
const defaultHot = 10_000

// Config is the configuration of a [Manager]. Its zero value is useful but for
// AgreeToTerms. [New] keeps a copy; later changes to a Config have no effect.
type Config struct {
	// Email is where the CA may reach you about the account. Optional.
	Email string

	// AgreeToTerms says that you agree to the terms of service of the CAs in
	// use. Without it New refuses to use an ACME CA.
	AgreeToTerms bool

	// Directory is the directory URL of the ACME CA when Issuers is empty.
	// Empty means LetsEncrypt.
	Directory string

	// Issuers are tried in turn, for every name and at every renewal. Empty
	// means one *ACME for Directory.
	Issuers []Issuer

	// Storage keeps certificates, keys and accounts. nil means a storage.Dir in
	// the user's configuration directory (os.UserConfigDir), in "certwright".
	Storage Storage

	// Locker excludes other instances that share Storage. nil means Storage
	// itself, which then must be a Locker too.
	Locker Locker

	// KeyTypes are the kinds of keys; each name gets one certificate a kind,
	// and a client is served the first that it supports. Empty means P256.
	KeyTypes []KeyType

	// Profile is the CA's profile for certificates whose Spec has none. Empty
	// leaves the choice to the CA.
	Profile string

	// DefaultName is served to clients that name no server and connect to an
	// address that has no certificate. Empty means the only certificate there
	// is, or the only one for an IP address.
	DefaultName string

	// FallbackName is served to clients that ask for a name that has no
	// certificate. Empty means that their handshake fails.
	FallbackName string

	// Adopt is what other programs stored: certificates and accounts that are
	// taken over before any CA is asked. nil means nothing is.
	Adopt []adopt.Source

	// Certificates are certificates that you supply: they are served beside
	// the managed ones and never renewed, but read again when their files
	// change. While what is served is valid, files with a certificate that is not
	// are an error in the log, and are taken once it is.
	Certificates []StaticCertificate

	// RenewalFraction is the part of a certificate's life that is left when it
	// is renewed and the CA suggests no time. 0 means 1/3, and 2/5 for one that
	// lives for less than ten days.
	RenewalFraction float64

	// DisableRenewalInfo ignores the CA's suggested windows (ARI, RFC 9773).
	DisableRenewalInfo bool

	// DisableStapling says that no OCSP response is asked for and stapled.
	DisableStapling bool

	// HotCertificates bounds how many certificates are kept parsed, the form in
	// which a handshake gets them in no time: about 5 kB more each. The others
	// are kept packed, about 1 kB each, and the first handshake for one parses
	// it, which takes some 50 microseconds of CPU time and no I/O; the parsed
	// form of those least used goes. 0 means 10,000; negative means no bound.
	HotCertificates int

	// Workers bounds how many names are worked on at once in each lane: in
	// storage, at one issuer, and at whoever is asked beside that. 0 means 16.
	Workers int

	// HTTPPort and TLSPort are the ports on which the CA's validation requests
	// reach this host. 0 means 80 and 443. Where nobody listens while a
	// challenge is pending, the Manager does. Negative means that it never
	// does: your own server answers.
	HTTPPort, TLSPort int

	// RedirectPort is the port of the https URLs to which HTTPHandler(nil) and
	// Serve redirect: the one that clients see, which is another than TLSPort
	// where ports are mapped. 0 means 443.
	RedirectPort int

	// ListenHost is the address on which those ports are bound. Empty means
	// all addresses.
	ListenHost string

	// CleanInterval is how often storage is cleaned of what nobody needs any
	// more, by one of the instances that share it. 0 means 24 hours; negative
	// means that it never is.
	//
	// What goes is what belongs to names that this Manager does not manage:
	// certificates that expired CleanGrace ago, and staples, renewal
	// information, unfinished orders and holds that nobody has touched for as
	// long; challenges that are ten minutes old, or damaged; and what an instance
	// that has stored nothing for a day has told of its changes. Accounts, other
	// records that cannot be read and everything under other keys stay.
	//
	// Where processes live less than that, old challenges go too, after one of the
	// Manager's own, and temporary files of writers that died a minute ago with the
	// first store in a folder. That goes on when the cleaning is turned off.
	CleanInterval time.Duration

	// CleanGrace is for how long what is not needed any more is kept. 0 means
	// 14 days.
	CleanGrace time.Duration

	// Logger receives what happens. nil writes warnings and errors to stderr as
	// text. Who has a *zap.Logger uses package zaplog.
	Logger *slog.Logger

	// OnEvent is called for every event, one at a time, on one goroutine of the
	// Manager's own; see Manager.Subscribe, which it is like, for what becomes of
	// events while a call takes long. A call that panics is logged, once for each
	// kind of event, and costs nothing else. Close waits until the last call has
	// returned, so that a call does not wait for Close. nil means nobody is told.
	OnEvent func(Event)
}

// StaticCertificate is a certificate that the caller supplies: either
// Certificate, or the files CertFile and KeyFile in PEM, which are read again
// when they change.
type StaticCertificate struct {
	Certificate       *tls.Certificate
	CertFile, KeyFile string
}

// Spec describes certificates to be managed.
type Spec struct {
	// Names are the names in one certificate: DNS names, wildcards and IP
	// addresses. At least one. They are a set: another order, or a name that is
	// there twice, does not make another certificate of it. Status and events
	// call it by the first.
	Names []string

	// KeyTypes, Profile and Issuers are as in Config, which they override.
	KeyTypes []KeyType
	Profile  string
	Issuers  []Issuer

	// MustStaple asks for a certificate that is only good with a stapled OCSP
	// response (RFC 7633). Few CAs still issue them.
	MustStaple bool

	// Lifetime asks for a certificate that ends so long after its order (notAfter,
	// RFC 8555 §7.1.3). A CA that does not offer a choice refuses the order. 0
	// leaves it to the CA; else it is at least a minute.
	Lifetime time.Duration
}

// validate checks c and fills in its defaults.
func (c *Config) validate() error {
	if err := checkEmail("Config.Email", c.Email); err != nil {
		return err
	}
	if !(c.RenewalFraction >= 0 && c.RenewalFraction < 1) { // NaN too
		return configErrorf("Config.RenewalFraction", "must be at least 0 and below 1, is %v", c.RenewalFraction)
	}
	if c.Workers < 0 {
		return configErrorf("Config.Workers", "must not be negative, is %d", c.Workers)
	}
	if c.Workers == 0 {
		c.Workers = 16
	}
	if c.CleanGrace < 0 {
		return configErrorf("Config.CleanGrace", "must not be negative, is %v", c.CleanGrace)
	}
	if c.CleanGrace == 0 {
		c.CleanGrace = defaultCleanGrace
	}
	if c.CleanInterval == 0 {
		c.CleanInterval = defaultCleanInterval
	}
	var err error
	if c.KeyTypes, err = checkKeyTypes("Config.KeyTypes", c.KeyTypes); err != nil {
		return err
	}
	if len(c.KeyTypes) == 0 {
		c.KeyTypes = []KeyType{P256}
	}
	if err := c.validateNames(); err != nil {
		return err
	}
	if err := c.validatePorts(); err != nil {
		return err
	}
	return c.validateIssuers()
}

func (c *Config) validateNames() error {
	for _, f := range []struct {
		field string
		name  *string
	}{{"Config.DefaultName", &c.DefaultName}, {"Config.FallbackName", &c.FallbackName}} {
		if *f.name == "" {
			continue
		}
		name, err := hostname.Normalize(*f.name)
		if err != nil {
			return &ConfigError{Field: f.field, Err: err}
		}
		*f.name = name
	}
	for i, s := range c.Certificates {
		field := fmt.Sprintf("Config.Certificates[%d]", i)
		switch {
		case s.Certificate != nil && (s.CertFile != "" || s.KeyFile != ""):
			return configErrorf(field, "has both a Certificate and files; set one of them")
		case s.Certificate == nil && (s.CertFile == "" || s.KeyFile == ""):
			return configErrorf(field, "needs a Certificate, or both CertFile and KeyFile")
		}
	}
	return nil
}

func (c *Config) validatePorts() error {
	for _, f := range []struct {
		field string
		port  *int
		std   int
	}{{"Config.HTTPPort", &c.HTTPPort, 80}, {"Config.TLSPort", &c.TLSPort, 443}, {"Config.RedirectPort", &c.RedirectPort, 443}} {
		if *f.port > 65535 {
			return configErrorf(f.field, "must be at most 65535, is %d", *f.port)
		}
		if *f.port == 0 {
			*f.port = f.std
		}
	}
	if c.RedirectPort < 0 {
		return configErrorf("Config.RedirectPort", "must not be negative, is %d", c.RedirectPort)
	}
	if c.ListenHost != "" {
		if _, err := netip.ParseAddr(c.ListenHost); err != nil && c.ListenHost != "localhost" {
			return configErrorf("Config.ListenHost", "not an IP address: %q", c.ListenHost)
		}
	}
	return nil
}

func (c *Config) validateIssuers() error {
	if c.Directory != "" && len(c.Issuers) > 0 {
		return configErrorf("Config.Directory", "is used only when Issuers is empty; set ACME.Directory there")
	}
	c.Issuers = slices.Clone(c.Issuers)
	if len(c.Issuers) == 0 {
		c.Issuers = []Issuer{&ACME{Directory: c.Directory}}
	}
	return nil
}

// checkEmail takes an address without a display name, or none. The CA judges the
// rest (RFC 8555 §7.3).
func checkEmail(field, email string) error {
	if email == "" {
		return nil
	}
	const cure = "must be an address alone, such as admin@example.com; is %q"
	switch addr, err := mail.ParseAddress(email); {
	case err != nil:
		return &ConfigError{Field: field, Err: fmt.Errorf(cure+": %w", email, err)}
	case addr.Address != email: // a name, brackets, a comment or quotes
		return configErrorf(field, cure, email)
	}
	return nil
}

// isNil reports whether v is nil or holds a nil pointer, as a variable does
// that was set from a call whose error was not looked at.
func isNil(v any) bool {
	r := reflect.ValueOf(v)
	return !r.IsValid() || r.Kind() == reflect.Pointer && r.IsNil()
}

func checkKeyTypes(field string, types []KeyType) ([]KeyType, error) {
	out := slices.Clone(types)
	for i, t := range out {
		if t == "" {
			out[i] = P256
		} else if !slices.Contains(keyTypes[:], t) {
			return nil, configErrorf(fmt.Sprintf("%s[%d]", field, i), "unknown key type %q", t)
		}
		if slices.Contains(out[:i], out[i]) {
			return nil, configErrorf(fmt.Sprintf("%s[%d]", field, i), "names %q twice", out[i])
		}
	}
	return out, nil
}

// hotCertificates returns the bound as the cache takes it: 0 for none.
func (c *Config) hotCertificates() int {
	if c.HotCertificates == 0 {
		return defaultHot
	}
	return max(c.HotCertificates, 0)
}

// openStorage fills in Storage and Locker. own is the storage that the Manager
// opened and has to close.
func (c *Config) openStorage() (own *storage.Dir, err error) {
	if c.Storage == nil {
		dir, err := os.UserConfigDir()
		if err != nil {
			return nil, &ConfigError{Field: "Config.Storage", Err: fmt.Errorf("no default directory is known; set Storage: %w", err)}
		}
		if own, err = storage.OpenDir(filepath.Join(dir, "certwright")); err != nil {
			return nil, &ConfigError{Field: "Config.Storage", Err: err}
		}
		c.Storage = own
	}
	if isNil(c.Storage) {
		return own, configErrorf("Config.Storage", "is a nil %T; did opening it fail?", c.Storage)
	}
	if c.Locker != nil && isNil(c.Locker) {
		return own, configErrorf("Config.Locker", "is a nil %T; did opening it fail?", c.Locker)
	}
	if c.Locker == nil {
		l, ok := storage.LockerOf(c.Storage)
		if !ok {
			return own, &ConfigError{Field: "Config.Locker", Err: errors.New("must be set: the Storage is not a Locker too")}
		}
		c.Locker = l
	}
	return own, nil
}

func listenAddr(host string, port int) string {
	return net.JoinHostPort(host, fmt.Sprint(port))
}
