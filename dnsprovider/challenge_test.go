package dnsprovider_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/dnsprovider"
)

// challenge is a dns-01 challenge whose State is kept as the Manager keeps it.
type challenge struct {
	certwright.Challenge
	mu    sync.Mutex
	state []byte
	saves int
	said  []string
	logs  strings.Builder
}

func newChallenge(name, value string) *challenge {
	c := &challenge{Challenge: certwright.Challenge{
		Type: "dns-01", Name: name, DNSName: "_acme-challenge." + name, DNSValue: value,
	}}
	c.Save = func(_ context.Context, b []byte) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.state = slices.Clone(b)
		c.saves++
		return nil
	}
	c.Progress = func(detail string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.said = append(c.said, detail)
	}
	c.Log = slog.New(slog.NewTextHandler(lockedWriter{c}, nil))
	return c
}

type lockedWriter struct{ c *challenge }

func (w lockedWriter) Write(b []byte) (int, error) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	return w.c.logs.Write(b)
}

// now is the challenge as it would be given to a Solver at this moment.
func (c *challenge) now() certwright.Challenge {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.Challenge
	ch.State = c.state
	return ch
}

func (c *challenge) log() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.logs.String()
}

func (c *challenge) progress() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.said)
}

func mustPresent(t *testing.T, s *dnsprovider.Solver, cs ...*challenge) {
	t.Helper()
	for _, c := range cs {
		if err := s.Present(t.Context(), c.now()); err != nil {
			t.Fatalf("presenting %s: %v", c.DNSValue, err)
		}
	}
}

func mustCleanUp(t *testing.T, s *dnsprovider.Solver, cs ...*challenge) {
	t.Helper()
	for _, c := range cs {
		if err := s.CleanUp(t.Context(), c.now()); err != nil {
			t.Fatalf("cleaning up %s: %v", c.DNSValue, err)
		}
	}
}

func want(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// wantError reports an error that lacks a text.
func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q lacks %q", err, text)
		}
	}
	if strings.Contains(err.Error(), "<nil>") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q", err)
	}
}
