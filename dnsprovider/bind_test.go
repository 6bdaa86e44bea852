//go:build unix

package dnsprovider_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/dnsprovider"
	"github.com/certwright/certwright/dnsprovider/rfc2136"
	"github.com/certwright/certwright/internal/bind"
	"github.com/certwright/certwright/internal/dnsprobe"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// bindSolver returns a Solver that writes to a BIND by dynamic updates.
func bindSolver(addr, port string) (*dnsprovider.Solver, error) {
	p, err := rfc2136.New(rfc2136.Config{Server: addr, KeyName: bind.KeyName, Algorithm: bind.Algorithm, Secret: bind.Secret})
	if err != nil {
		return nil, err
	}
	s := &dnsprovider.Solver{Provider: p}
	s.Probe(dnsprobe.New(dnsprobe.Options{Port: port, System: func() []string { return []string{addr} }}))
	return s, nil
}

const (
	foreign   = "somebody else's"
	acmeLabel = "_acme-challenge.example.com"
)

// startBIND starts one with a foreign value at acmeLabel.
func startBIND(t *testing.T, o bind.Options) (*bind.Server, *dnsprovider.Solver) {
	t.Helper()
	o.Zones = []string{"example.com"}
	b := bind.Start(t, o)
	b.Update(t, "example.com", fmt.Sprintf("%s. 60 TXT %q", acmeLabel, foreign))
	for i := range o.Secondaries {
		b.Refresh(t, i+1)
	}
	s, err := bindSolver(b.Addr, b.Port)
	if err != nil {
		t.Fatal(err)
	}
	return b, s
}

// Secondaries that refresh late are waited for, and Progress says which. What is not
// ours stays.
func TestLateSecondariesAreWaitedFor(t *testing.T) {
	b, s := startBIND(t, bind.Options{Secondaries: 2})
	behind := 2
	ch := certwright.Challenge{
		Type: "dns-01", Name: "example.com", DNSName: acmeLabel, DNSValue: "the value",
		Progress: func(detail string) {
			switch {
			case behind == 0:
			case !strings.Contains(detail, fmt.Sprintf("ns%d.example.com", behind+1)):
				t.Errorf("Progress(%q) does not name the server that lacks it", detail)
			default:
				b.Refresh(t, behind)
				behind--
			}
		},
	}
	if err := errors.Join(s.Present(t.Context(), ch), s.Wait(t.Context(), ch)); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if got := b.TXT(t, i, acmeLabel); behind != 0 || len(got) != 2 {
			t.Errorf("server %d shows %q", i, got)
		}
	}
	if err := s.CleanUp(t.Context(), ch); err != nil {
		t.Error(err)
	}
	if got := b.TXT(t, 0, acmeLabel); !slices.Equal(got, []string{foreign}) {
		t.Errorf("left is %q", got)
	}
}

// lookingCA is a CA that validates dns-01 at a BIND.
func lookingCA(t *testing.T, b *bind.Server) *fakeca.CA {
	t.Helper()
	var ca *fakeca.CA
	srv := httptest.NewUnstartedServer(nil)
	ca = fakeca.New(fakeca.Options{
		BaseURL: "http://" + srv.Listener.Addr().String(), Challenges: []string{"dns-01"},
		Validate: func(_ context.Context, ch fakeca.ChallengeInfo) error {
			name := "_acme-challenge." + ch.Identifier.Value
			if m := b.Query(t, 0, name, dns.TypeCNAME); len(m.Answer) > 0 {
				name = strings.TrimSuffix(m.Answer[0].(*dns.CNAME).Target, ".")
			}
			sum := sha256.Sum256([]byte(ch.KeyAuthorization))
			if got := b.TXT(t, 0, name); !slices.Contains(got, base64.RawURLEncoding.EncodeToString(sum[:])) {
				return fmt.Errorf("TXT %s is %q", name, got)
			}
			return nil
		},
	})
	srv.Config.Handler = ca
	srv.Start()
	t.Cleanup(srv.Close)
	return ca
}

// stuck says that it has presented, and waits to be killed.
type stuck struct{ *dnsprovider.Solver }

func (stuck) Wait(ctx context.Context, _ certwright.Challenge) error {
	fmt.Println("presented")
	<-ctx.Done()
	return context.Cause(ctx)
}

// The variables of a child: what it does, and with what.
const (
	childDoes  = "CERTWRIGHT_TEST_DOES" // stick or issue
	childDir   = "CERTWRIGHT_TEST_DIR"
	childCA    = "CERTWRIGHT_TEST_CA"
	childAddr  = "CERTWRIGHT_TEST_ADDR"
	childPort  = "CERTWRIGHT_TEST_PORT"
	childNames = "CERTWRIGHT_TEST_NAMES"
)

// TestChild is not a test: it is what another process does.
func TestChild(t *testing.T) {
	if os.Getenv(childDoes) == "" {
		t.Skip("only in a child")
	}
	if err := issueInChild(); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func issueInChild() error {
	s, err := bindSolver(os.Getenv(childAddr), os.Getenv(childPort))
	if err != nil {
		return err
	}
	solver := certwright.Solver(s)
	if os.Getenv(childDoes) == "stick" {
		solver = stuck{s}
	}
	dir, err := storage.OpenDir(os.Getenv(childDir))
	if err != nil {
		return err
	}
	defer dir.Close()
	m, err := newManager(dir, os.Getenv(childCA), solver)
	if err != nil {
		return err
	}
	ctx := context.Background()
	err = m.Manage(ctx, certwright.Spec{Names: strings.Split(os.Getenv(childNames), ",")})
	return errors.Join(err, m.Close(ctx))
}

func newManager(dir *storage.Dir, ca string, s certwright.Solver) (*certwright.Manager, error) {
	return certwright.New(certwright.Config{
		AgreeToTerms: true, Storage: dir, Logger: slog.New(slog.DiscardHandler), HTTPPort: -1, TLSPort: -1,
		Issuers: []certwright.Issuer{&certwright.ACME{Directory: ca, Solvers: map[string]certwright.Solver{"dns-01": s}}},
	})
}

// child is a process that issues.
func child(t *testing.T, b *bind.Server, does string, vars ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestChild$")
	cmd.Env = append(append(os.Environ(), childDoes+"="+does, childAddr+"="+b.Addr, childPort+"="+b.Port), vars...)
	cmd.Stderr = os.Stderr
	return cmd
}

// A process is killed between Present and CleanUp: the next one leaves no record of
// either, and what is not theirs.
func TestNoRecordIsLeftOfAKilledProcess(t *testing.T) {
	b, s := startBIND(t, bind.Options{})
	path, ca := t.TempDir(), lookingCA(t, b)
	names := []string{"example.com", "*.example.com"}
	cmd := child(t, b, "stick", childDir+"="+path, childCA+"="+ca.Directory(), childNames+"="+strings.Join(names, ","))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range names {
		if !lines.Scan() || lines.Text() != "presented" {
			t.Fatalf("the child said %q", lines.Text())
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if got := b.TXT(t, 0, acmeLabel); len(got) != 3 {
		t.Fatalf("the child has left %q", got)
	}
	dir, err := storage.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	m, err := newManager(dir, ca.Directory(), s)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Manage(t.Context(), certwright.Spec{Names: names}), m.Close(t.Context())); err != nil {
		t.Error(err)
	}
	if got := b.TXT(t, 0, acmeLabel); !slices.Equal(got, []string{foreign}) {
		t.Errorf("left is %q", got)
	}
	if n := ca.Count("newOrder"); n != 1 {
		t.Errorf("%d orders", n)
	}
}

// Eight processes write at one name, to which the CNAMEs of their names lead.
func TestProcessesWriteAtOneName(t *testing.T) {
	b, _ := startBIND(t, bind.Options{Policy: "grant * zonesub TXT CNAME;"})
	path, ca := t.TempDir(), lookingCA(t, b)
	var all []*exec.Cmd
	for i := range 8 {
		name := fmt.Sprintf("n%d.example.com", i)
		b.Update(t, "example.com", fmt.Sprintf("_acme-challenge.%s. 60 CNAME %s.", name, acmeLabel))
		cmd := child(t, b, "issue", childDir+"="+path, childCA+"="+ca.Directory(), childNames+"="+name)
		cmd.Stdout = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, cmd)
	}
	for i, cmd := range all {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v", i, err)
		}
	}
	if got := b.TXT(t, 0, acmeLabel); !slices.Equal(got, []string{foreign}) {
		t.Errorf("left is %q", got)
	}
	if n := ca.Count("newOrder"); n != len(all) {
		t.Errorf("%d orders", n)
	}
}
