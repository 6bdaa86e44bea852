package main

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

// TestBinarySize builds the same program on each library, as it would be
// shipped. The one on certwright is no larger than that on CertMagic, and the
// one on no library is the smallest.
func TestBinarySize(t *testing.T) {
	if testing.Short() {
		t.Skip("builds four programs")
	}
	sizes, err := measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, column := range columns {
		t.Log(row(column, sizes[column]))
		if sizes[column] < sizes["limit"] {
			t.Errorf("the program on %s has %d bytes, less than the %d of the limit", column, sizes[column], sizes["limit"])
		}
	}
	if sizes["certwright"] > sizes["certmagic"] {
		t.Errorf("the program on certwright has %d bytes, more than the %d of that on CertMagic", sizes["certwright"], sizes["certmagic"])
	}
}

func TestRow(t *testing.T) {
	if got, want := row("autocert", 7_471_369), "row size autocert 7.471 MB"; got != want {
		t.Errorf("got %q, want %q", got, want)
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
		"go.uber.org/goleak", "certwright/acmetest", "certwright/storage/storagetest", "certwright/internal/fakeca",
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

// TestLinksNoReader checks that a program that names no source of package adopt
// does not link what reads them.
func TestLinksNoReader(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	goCommand(t, "build", "-o", program, "./certwright")
	symbols := goCommand(t, "tool", "nm", program)
	const readers = "certwright/adopt."
	if !strings.Contains(symbols, readers+"Pair.Format") {
		t.Error("the symbols do not name what is linked for sure")
	}
	for _, one := range []string{"(*source)", "(*files)", "(*certMagic)", "(*autocert)", "(*lego)", "(*certbot)"} {
		if strings.Contains(symbols, readers+one) {
			t.Errorf("links %s%s", readers, one)
		}
	}
}
