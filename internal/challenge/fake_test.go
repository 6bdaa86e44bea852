package challenge_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/challenge"
	"go.uber.org/goleak"
)

const prefix = "v1/challenges"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeStore is a store in memory that can be slow, hang, panic and fail.
type fakeStore struct {
	mu           sync.Mutex // guards the fields below
	values       map[string][]byte
	lists, loads int           // how many calls there were
	running      int           // calls of both kinds that run
	most         int           // of those that ran at once
	slow         time.Duration // each call of List and Load takes so long
	before       func(ctx context.Context, call string) error
}

// enter counts a call of List or Load and does to it what the test wants.
func (s *fakeStore) enter(ctx context.Context, call string, count *int) error {
	s.mu.Lock()
	*count++
	s.running++
	s.most = max(s.most, s.running)
	slow, before := s.slow, s.before
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running--
	}()
	if slow > 0 {
		time.Sleep(slow)
	}
	if before != nil {
		return before(ctx, call)
	}
	return nil
}

func (s *fakeStore) Load(ctx context.Context, key string) ([]byte, error) {
	if err := s.enter(ctx, "load", &s.loads); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.values[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return v, nil
}

func (s *fakeStore) List(ctx context.Context, prefix string) ([]string, error) {
	keys := s.keys(prefix) // as they are when the call begins
	if err := s.enter(ctx, "list", &s.lists); err != nil {
		return nil, err
	}
	return keys, nil
}

func (s *fakeStore) Store(ctx context.Context, key string, value []byte) error {
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()
	if before != nil {
		if err := before(ctx, "store"); err != nil {
			return err
		}
	}
	s.put(key, string(value))
	return nil
}

func (s *fakeStore) Delete(ctx context.Context, key string) error {
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()
	if before != nil {
		if err := before(ctx, "delete"); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.values, key)
	return nil
}

func (s *fakeStore) put(key, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		s.values = map[string][]byte{}
	}
	s.values[key] = []byte(value)
}

// keys returns the keys below prefix, sorted.
func (s *fakeStore) keys(prefix string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, k := range slices.Sorted(maps.Keys(s.values)) {
		if strings.HasPrefix(k, prefix+"/") {
			out = append(out, k)
		}
	}
	return out
}

// set changes what calls do from now on; nil is nothing.
func (s *fakeStore) set(before func(ctx context.Context, call string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

func (s *fakeStore) fail(err error) {
	s.set(func(context.Context, string) error { return err })
}

// counts returns how many lists and loads there were, and how many ran at once.
func (s *fakeStore) counts() (lists, loads, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lists, s.loads, s.most
}

// group runs goroutines of a run group and counts them.
type group struct {
	ctx   context.Context
	close func()
	wg    sync.WaitGroup

	mu            sync.Mutex // guards the fields below
	ended         bool
	running, most int
}

func newGroup(t *testing.T) *group {
	g := &group{}
	g.ctx, g.close = context.WithCancel(context.Background())
	t.Cleanup(g.end)
	return g
}

// spawn runs f, and not at all once the group has ended.
func (g *group) spawn(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return
	}
	g.running++
	g.most = max(g.most, g.running)
	g.wg.Go(func() {
		defer func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.running--
		}()
		f()
	})
}

// end ends the group and waits for all that runs.
func (g *group) end() {
	g.close()
	g.mu.Lock()
	g.ended = true
	g.mu.Unlock()
	g.wg.Wait()
}

// counts returns how many goroutines run and how many ran at once.
func (g *group) counts() (running, most int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running, g.most
}

// instance returns a Table that shares store; nil is none.
func instance(t *testing.T, store *fakeStore) *challenge.Table {
	t.Helper()
	return instanceOf(newGroup(t), store)
}

func instanceOf(g *group, store *fakeStore) *challenge.Table {
	o := challenge.Options{Prefix: prefix, Cert: fakeCert, Go: g.spawn, Context: g.ctx}
	if store != nil {
		o.Store = store
	}
	return challenge.New(o)
}

// fakeCert names its key authorization where a test can read it.
func fakeCert(identifier, keyAuthorization string) (*tls.Certificate, error) {
	if identifier == "" {
		return nil, errors.New("no identifier")
	}
	return &tls.Certificate{Leaf: &x509.Certificate{DNSNames: []string{identifier, keyAuthorization}}}, nil
}

func httpChallenge(identifier, token string) challenge.Challenge {
	return challenge.Challenge{Type: challenge.HTTP01, Identifier: identifier, Token: token, KeyAuthorization: token + ".thumb"}
}

func alpnChallenge(identifier, token string) challenge.Challenge {
	return challenge.Challenge{Type: challenge.TLSALPN01, Identifier: identifier, Token: token, KeyAuthorization: token + ".thumb"}
}

func present(t *testing.T, table *challenge.Table, ch challenge.Challenge) {
	t.Helper()
	if err := table.Present(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
}

func cleanUp(t *testing.T, table *challenge.Table, ch challenge.Challenge) {
	t.Helper()
	if err := table.CleanUp(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
}

// wantToken fails unless table answers http-01 for a token, or does not.
func wantToken(t *testing.T, table *challenge.Table, token string, want bool) {
	t.Helper()
	got, ok := table.KeyAuthorization(t.Context(), token)
	if ok != want || ok && got != token+".thumb" {
		t.Errorf("token %q: %q %v, want %v", token, got, ok, want)
	}
}

// wantCert fails unless table answers tls-alpn-01 for a.example.com with a
// token; "" is none.
func wantCert(t *testing.T, table *challenge.Table, token string) {
	t.Helper()
	cert, err := table.Certificate(t.Context(), "a.example.com")
	switch {
	case token == "" && errors.Is(err, fs.ErrNotExist):
	case token == "" || err != nil:
		t.Errorf("certificate for %q: %v %v", token, cert, err)
	case cert.Leaf.DNSNames[1] != token+".thumb":
		t.Errorf("certificate of %q, want %q", cert.Leaf.DNSNames[1], token)
	}
}
