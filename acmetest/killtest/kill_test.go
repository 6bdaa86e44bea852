//go:build unix

// Package killtest_test kills a program that knows certwright by its public API
// only, again and again, and looks at what is left as an outsider does: with crypto/tls,
// at the files.
package killtest_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/acmetest"
	"github.com/certwright/certwright/storage"
)

var kills = flag.Int("kills", 0, "how often a program is killed; 0 means 100, 25 with -short")

// What the program is told by its environment.
const (
	envDir       = "KILLTEST_DIR"
	envDirectory = "KILLTEST_DIRECTORY"
	envRoot      = "KILLTEST_ROOT"
	envPorts     = "KILLTEST_PORTS"
)

var names = []string{"a.example.com", "b.example.com", "c.example.com"}

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(envDir) != "" {
		if err := program(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// program is a server's beginning, and renews without an end.
func program(ctx context.Context) error {
	dir, err := storage.OpenDir(os.Getenv(envDir))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(os.Getenv(envRoot)))
	conf := certwright.Config{
		AgreeToTerms: true, Storage: dir, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Issuers: []certwright.Issuer{&certwright.ACME{Directory: os.Getenv(envDirectory), RootCAs: roots}}, ListenHost: "127.0.0.1",
	}
	if _, err := fmt.Sscan(os.Getenv(envPorts), &conf.HTTPPort, &conf.TLSPort); err != nil {
		return err
	}
	m, err := certwright.New(conf)
	if err != nil {
		return err
	}
	if err := m.ManageSync(ctx, names); err != nil {
		return err
	}
	fmt.Println("up")
	for {
		for _, name := range names {
			if err := m.Renew(ctx, name); err != nil {
				return err
			}
		}
	}
}

func TestKilledProgramLosesNothing(t *testing.T) { // F53
	n := *kills
	if n == 0 {
		n = 100
		if testing.Short() {
			n = 25
		}
	}
	ca := acmetest.Start(t)
	dir := t.TempDir()
	env := append(os.Environ(), envDir+"="+dir, envDirectory+"="+ca.Directory(), envRoot+"="+string(ca.APIRootPEM()),
		envPorts+"="+strconv.Itoa(ca.HTTPPort())+" "+strconv.Itoa(ca.TLSPort()))
	for i := range n {
		run(t, env, time.Duration(rand.Int64N(int64(300*time.Millisecond))))
		if i == n/2 {
			age(t, dir)
		}
		for _, name := range names {
			checkPair(t, ca, dir, name)
		}
		if t.Failed() {
			t.Fatalf("after %d kills", i+1)
		}
	}
	left := count(t, dir)
	t.Logf("%d kills, files left: %v", n, left)
	// A temporary file is left by one kill in ten, and goes after a minute; a challenge is
	// withdrawn by who goes on with its order.
	if left["temporary"] > n/2 || left["challenges"] > 4*len(names) || left["orders"] > len(names) || left["certs"] != len(names) {
		t.Errorf("%v are left after %d kills, half of them since the temporary files were made old", left, n)
	}
}

// run runs the program until it serves, which a lock that is stuck would keep it from, and
// kills it some time after.
func run(t *testing.T, env []string, after time.Duration) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = env
	var says strings.Builder
	cmd.Stderr = &says
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if !stuck.Stop() || err != nil || line != "up\n" {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("the program did not come up: %q, %v: %s", line, err, says.String())
	}
	time.Sleep(after)
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
}

// checkPair reads the file of a name as any server would, and verifies it.
func checkPair(t *testing.T, ca *acmetest.CA, dir, name string) {
	t.Helper()
	file := filepath.Join(dir, "v1", "certs", name+"%2bp256.pem.rec")
	pair, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	between := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		between.AddCert(c)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: ca.Roots(), Intermediates: between}); err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

// count counts the files in dir by the folder below it, and temporary ones.
func count(t *testing.T, dir string) map[string]int {
	t.Helper()
	out := map[string]int{}
	walk(t, dir, func(path string) {
		kind, _, _ := strings.Cut(strings.TrimPrefix(path, filepath.Join(dir, "v1")+"/"), "/")
		if !strings.HasSuffix(path, ".rec") && strings.Contains(path, "/v1/") {
			kind = "temporary"
		}
		out[kind]++
	})
	return out
}

// age makes temporary files as old as those of dead writers are in time.
func age(t *testing.T, dir string) {
	t.Helper()
	old := time.Now().Add(-time.Hour)
	walk(t, dir, func(path string) {
		if strings.Contains(path, "/v1/") && !strings.HasSuffix(path, ".rec") {
			if err := os.Chtimes(path, old, old); err != nil {
				t.Error(err)
			}
		}
	})
}

func walk(t *testing.T, dir string, visit func(path string)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !d.IsDir() {
			visit(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
