package acmetest

import (
	"bytes"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/letsencrypt/pebble/v2/acme"
	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/core"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// IssuerDomainName is the name by which CAA and dns-persist-01 records speak of
// a CA of this package. CAA records are not checked.
const IssuerDomainName = "acmetest.invalid"

// backend is one Pebble with all its state. Restart replaces it as a whole.
type backend struct {
	store     *db.MemoryStore
	authority *ca.CAImpl
	pebble    http.Handler
	counts    *counts
	blocked   []string // normalised
	reuse     bool     // valid authorizations may be reused

	// mu makes Pebble's handlers run one after the other: among themselves they
	// take locks in different orders, take a read lock twice, and read an
	// order's status and IsReplaced without any. It guards authzs too.
	mu     sync.Mutex
	authzs map[acme.Identifier][]*core.Authorization
}

// constructing makes setting the environment, constructing a Pebble and putting
// the environment back one step. It is held at no other time.
var constructing sync.Mutex

// newBackend constructs a Pebble for valid options whose ports are set.
func newBackend(o Options, resolver string, lines *lineWriter) (*backend, error) {
	b := &backend{
		store:  db.NewMemoryStore(),
		reuse:  o.ReuseAuthorizations > 0,
		authzs: make(map[acme.Identifier][]*core.Authorization),
	}
	for _, name := range o.Blocklist {
		b.blocked = append(b.blocked, normalName(name))
	}
	for kid, key := range o.EAB {
		// The error of a bad key would quote it. Options.validate has seen it.
		if err := b.store.AddExternalAccountKeyByID(kid, key); err != nil {
			return nil, fmt.Errorf("adding external account key %q: not accepted", kid)
		}
	}
	profiles := make(map[string]ca.Profile)
	for name, p := range o.Profiles {
		profiles[name] = ca.Profile{Description: p.Description, ValidityPeriod: uint64(seconds(p.Lifetime))}
	}
	if len(profiles) == 0 {
		profiles["default"] = ca.Profile{Description: "the default profile", ValidityPeriod: uint64(seconds(defaultLifetime))}
	}

	constructing.Lock()
	defer constructing.Unlock()
	restore, err := setEnvironment(environment(o))
	defer restore()
	if err != nil {
		return nil, err
	}
	// A log.Logger on io.Discard takes no lock, and Pebble's goroutines would
	// lose an order between them that the race detector needs.
	logger := log.New(lines, "", 0)
	b.authority = ca.New(logger, b.store, o.OCSPURL, "ecdsa", o.AlternateRoots, max(o.ChainLength, 1), profiles)
	validator := va.New(logger, o.HTTPPort, o.TLSPort, !o.Lenient, resolver, b.store)
	retry := seconds(o.RetryAfter)
	front := wfe.New(logger, b.store, validator, b.authority, []string{IssuerDomainName},
		!o.Lenient, len(o.EAB) > 0, retry, retry)
	b.pebble = front.Handler()
	return b, nil
}

// environment returns the variables that Pebble's constructors read.
func environment(o Options) map[string]string {
	return map[string]string{
		"PEBBLE_VA_NOSLEEP":      "1",
		"PEBBLE_VA_ALWAYS_VALID": "0",
		"PEBBLE_WFE_NONCEREJECT": strconv.Itoa(o.BadNonces),
		// Pebble reuses when a number from 0 to 99 is not above this one.
		"PEBBLE_AUTHZREUSE": strconv.Itoa(max(o.ReuseAuthorizations-1, 0)),
	}
}

// setEnvironment sets variables of the process environment and returns the
// function that puts them back, which is never nil.
func setEnvironment(vars map[string]string) (restore func(), err error) {
	old := make(map[string]string)
	var unset []string
	restore = func() {
		for name, value := range old {
			_ = os.Setenv(name, value) // it was set to this before
		}
		for _, name := range unset {
			_ = os.Unsetenv(name)
		}
	}
	for name, value := range vars {
		if before, ok := os.LookupEnv(name); ok {
			old[name] = before
		} else {
			unset = append(unset, name)
		}
		if err := os.Setenv(name, value); err != nil {
			return restore, fmt.Errorf("setting environment variable %q: %w", name, err)
		}
	}
	return restore, nil
}

// lineWriter gives each line written to it to log. Its zero value drops them.
type lineWriter struct {
	mu  sync.Mutex // guards log, and is held in its calls, so that stop is final
	log func(string)
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.log != nil {
		for line := range strings.Lines(string(p)) {
			w.log(strings.TrimRight(line, "\r\n"))
		}
	}
	return len(p), nil
}

// stop drops every later line.
func (w *lineWriter) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = nil
}

// recorder keeps an answer until it is sent. It is for one goroutine.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newRecorder() *recorder { return &recorder{header: make(http.Header)} }

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(p)
}

// send sends the answer to w. An error of the connection is the client's to see.
func (r *recorder) send(w http.ResponseWriter) {
	for name, values := range r.header {
		w.Header()[name] = values
	}
	w.WriteHeader(max(r.status, http.StatusOK))
	_, _ = w.Write(r.body.Bytes())
}

// waitFor calls done until it reports true or limit has passed.
func waitFor(limit time.Duration, done func() bool) {
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	for !done() && time.Now().Before(deadline) {
		<-tick.C
	}
}
