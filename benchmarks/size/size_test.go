// Package size compares what programs weigh that serve one name over HTTPS.
package size

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// goCommand runs the go command and returns what it prints on stdout.
func goCommand(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

// TestBinarySize builds the same program on three libraries, as it would be
// shipped. The one on certwright is no larger than that on CertMagic.
func TestBinarySize(t *testing.T) {
	if testing.Short() {
		t.Skip("builds three programs")
	}
	size := map[string]int64{}
	for _, lib := range []string{"certwright", "certmagic", "autocert"} {
		path := filepath.Join(t.TempDir(), lib)
		goCommand(t, "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./"+lib)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		size[lib] = info.Size()
		t.Logf("%-10s %5.2f MB", lib, float64(info.Size())/1e6)
	}
	if size["certwright"] > size["certmagic"] {
		t.Errorf("the program on certwright has %d bytes, more than the %d of that on CertMagic", size["certwright"], size["certmagic"])
	}
}

// TestDeps checks that a program that imports only the root links nothing that
// it does not need.
func TestDeps(t *testing.T) {
	deps := strings.Fields(goCommand(t, "list", "-deps", "./certwright"))
	if len(deps) < 50 {
		t.Fatalf("go list names %d packages only", len(deps))
	}
	foreign := []string{
		"letsencrypt/pebble", "letsencrypt/challtestsrv", "aws/aws-sdk-go", "go.etcd.io", "caddyserver/", "miekg/dns", "libdns/",
		"go.uber.org/goleak", "certwright/acmetest", "certwright/storagetest", "certwright/internal/fakeca",
	}
	for _, dep := range deps {
		if dep == "testing" || strings.HasPrefix(dep, "testing/") {
			t.Errorf("links %s", dep)
		}
		for _, f := range foreign {
			if strings.Contains(dep, f) {
				t.Errorf("links %s", dep)
			}
		}
	}
	t.Logf("%d packages", len(deps))
}
