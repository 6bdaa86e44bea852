//go:build unix

package certwright_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// fileZone is a DNS zone of which each record is a file. What it adds in Present it
// knows in CleanUp only by its State.
type fileZone struct{ dir string }

func (z fileZone) Present(ctx context.Context, ch Challenge) error {
	path := filepath.Join(z.dir, ch.DNSName+"="+ch.DNSValue)
	if err := ch.Save(ctx, []byte(path)); err != nil {
		return err
	}
	return os.WriteFile(path, nil, 0o600)
}

func (z fileZone) CleanUp(_ context.Context, ch Challenge) error {
	return os.Remove(string(ch.State))
}

// stuckZone says that it has presented its record, and waits to be killed.
type stuckZone struct{ fileZone }

func (stuckZone) Wait(ctx context.Context, _ Challenge) error {
	say("presented")
	<-ctx.Done()
	return context.Cause(ctx)
}

// dnsManager returns a Manager on a folder that solves dns-01 with z.
func dnsManager(dir *storage.Dir, directory string, z Solver) (*Manager, error) {
	return New(Config{
		AgreeToTerms: true, Storage: dir, Logger: slog.New(slog.DiscardHandler), HTTPPort: -1, TLSPort: -1,
		Issuers: []Issuer{&ACME{Directory: directory, Solvers: map[string]Solver{"dns-01": z}}},
	})
}

// dnsChild presents records and waits to be killed.
func dnsChild() error {
	dir, err := storage.OpenDir(os.Getenv(childDir))
	if err != nil {
		return err
	}
	m, err := dnsManager(dir, os.Getenv(childCA), stuckZone{fileZone{os.Getenv(childZone)}})
	if err != nil {
		return err
	}
	return m.Manage(context.Background(), Spec{Names: strings.Split(os.Getenv(childNames), ",")})
}

// A process that is killed between Present and CleanUp leaves records that the next
// one removes before it presents its own; others' stay.
func TestRecordsOfAKilledProcessAreRemoved(t *testing.T) {
	zone, path := t.TempDir(), t.TempDir()
	names := []string{"example.com", "*.example.com"}
	_, vars := serveCA(t, path, fakeca.Options{Challenges: []string{"dns-01"}}, names...)
	foreign := filepath.Join(zone, "_acme-challenge.example.com=foreign")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c := startChild(t, "dns", append(vars, childZone+"="+zone)...)
		c.expect("presented")
		c.expect("presented")
		c.kill()
		if n := len(filesIn(t, zone)); n != 3 {
			t.Fatalf("%d records", n)
		}
	}
	dir, err := storage.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	m, err := dnsManager(dir, variables(vars)(childCA), fileZone{zone})
	if err != nil {
		t.Fatal(err)
	}
	defer closeManager(t, m)
	if err := m.Manage(t.Context(), Spec{Names: names}); err != nil {
		t.Fatal(err)
	}
	if left := filesIn(t, zone); len(left) != 1 || left[0] != filepath.Base(foreign) {
		t.Errorf("left are %q", left)
	}
	if keys := journaled(t, dir); len(keys) > 0 {
		t.Errorf("journaled are %q", keys)
	}
}

func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}
