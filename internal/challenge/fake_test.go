package challenge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeStore is a store in memory that shows a value late and can fail.
type fakeStore struct {
	late time.Duration // from Store until Load and List show it

	mu     sync.Mutex // guards the fields below
	values map[string]stored
	loads  int
	err    error // of every call
}

type stored struct {
	value []byte
	seen  time.Time
}

func (s *fakeStore) Load(_ context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loads++
	v, ok := s.values[key]
	switch {
	case s.err != nil:
		return nil, s.err
	case !ok || time.Now().Before(v.seen):
		return nil, fs.ErrNotExist
	}
	return v.value, nil
}

func (s *fakeStore) Store(_ context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if s.values == nil {
		s.values = map[string]stored{}
	}
	s.values[key] = stored{value, time.Now().Add(s.late)}
	return nil
}

func (s *fakeStore) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	delete(s.values, key)
	return nil
}

func (s *fakeStore) List(_ context.Context, prefix string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	var keys []string
	for k, v := range s.values {
		if strings.HasPrefix(k, prefix+"/") && !time.Now().Before(v.seen) {
			keys = append(keys, k)
		}
	}
	return keys, nil
}

func (s *fakeStore) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// fakeCert names its key authorization where a test can read it.
func fakeCert(identifier, keyAuthorization string) (*tls.Certificate, error) {
	if identifier == "" {
		return nil, errors.New("no identifier")
	}
	return &tls.Certificate{Leaf: &x509.Certificate{DNSNames: []string{identifier, keyAuthorization}}}, nil
}

func keyAuthOf(t *testing.T, c *tls.Certificate) string {
	t.Helper()
	return c.Leaf.DNSNames[1]
}

func httpChallenge(identifier, token string) Challenge {
	return Challenge{Type: HTTP01, Identifier: identifier, Token: token, KeyAuthorization: token + ".thumb"}
}

func alpnChallenge(identifier, token string) Challenge {
	return Challenge{Type: TLSALPN01, Identifier: identifier, Token: token, KeyAuthorization: token + ".thumb"}
}

func present(t *testing.T, table *Table, ch Challenge) {
	t.Helper()
	if err := table.Present(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
}
