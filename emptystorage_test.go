package certwright_test

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
)

// TestLimitOfTheExactSetIsSeen starts in a folder that nobody kept: the CA has
// issued too many of the same before. Logs tell of the new folder, Status and
// Health of the limit. (R11)
func TestLimitOfTheExactSetIsSeen(t *testing.T) {
	const said = "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s"
	ca, conf := newFake(t, fakeca.Options{})
	ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.RateLimited(7*day, said)})
	dir := openDir(t, t.TempDir()+"/new")
	log, logs := observed(slog.LevelInfo)
	conf.Storage, conf.Logger = dir, log
	m := start(t, conf)
	if m.ManageSync(t.Context(), []string{"a.example.com"}) == nil {
		t.Fatal("a certificate came from a CA that refuses all orders")
	}
	if !slices.ContainsFunc(logs.All(), func(l logLine) bool {
		return l.Level == slog.LevelInfo && l.Fields["path"] == dir.Path() && strings.Contains(l.Message, "new folder")
	}) {
		t.Errorf("no line names the new folder: %v", logs.All())
	}
	for _, l := range logs.All() {
		if l.Level > slog.LevelInfo && l.Fields["path"] != "" {
			t.Errorf("a new folder frightens nobody: %v", l) // F83
		}
	}
	s := statusFor(t, m, "a.example.com")
	if !strings.Contains(s.LastError, said) || s.State != StateMissing || time.Until(s.NextAt) < 6*day {
		t.Errorf("status = %+v; want the limit, missing, next in a week", s)
	}
	if h := m.Health(); h.Failing != 1 || h.Managed != 1 {
		t.Errorf("health = %+v; want 1 of 1 failing", h)
	}
}
