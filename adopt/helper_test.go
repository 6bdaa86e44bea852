package adopt_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/certwright/certwright/adopt"
	"github.com/certwright/certwright/internal/certpem"
)

const (
	letsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"
	staging     = "https://acme-staging-v02.api.letsencrypt.org/directory"
)

// unpacked writes a tree of testdata/adopt into a folder of the test's own.
func unpacked(t testing.TB, name string) string {
	t.Helper()
	tree, err := txtar.ParseFile(filepath.Join("..", "testdata", "adopt", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range tree.Files {
		if name, target, ok := strings.Cut(f.Name, " -> "); ok {
			link(t, filepath.FromSlash(target), filepath.Join(dir, filepath.FromSlash(name)))
			continue
		}
		write(t, filepath.Join(dir, filepath.FromSlash(f.Name)), f.Data)
	}
	return dir
}

func write(t testing.TB, file string, data []byte) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(file), 0o700)
	if err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func link(t testing.TB, target, file string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(file), 0o700)
	if err == nil {
		err = os.Symlink(target, file)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func rename(t testing.TB, from, to string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(to), 0o700)
	if err == nil {
		err = os.Rename(from, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// fileWith returns the one file in dir whose path ends in suffix.
func fileWith(t testing.TB, dir, suffix string) string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.HasSuffix(filepath.ToSlash(path), suffix) {
			found = append(found, path)
		}
		return err
	})
	if err != nil || len(found) != 1 {
		t.Fatalf("files that end in %q: %q, %v", suffix, found, err)
	}
	return found[0]
}

// fileErrors returns the parts of a joined error, all of which name a file.
func fileErrors(t testing.TB, err error) []*adopt.FileError {
	t.Helper()
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		joined = errors.Join(err).(interface{ Unwrap() []error })
	}
	var out []*adopt.FileError
	for _, err := range joined.Unwrap() {
		bad, ok := errors.AsType[*adopt.FileError](err)
		if !ok || bad.File == "" || bad.Err == nil {
			t.Fatalf("an error without a file: %v", err)
		}
		out = append(out, bad)
	}
	return out
}

// leafOf returns the certificate and checks that the pair is whole and for name.
func leafOf(t testing.TB, p adopt.Pair, name string) (names []string) {
	t.Helper()
	chain, err := certpem.ParseChain([]byte(p.CertPEM))
	if err != nil {
		t.Fatal(err)
	}
	key, err := certpem.DecodeKey([]byte(p.KeyPEM))
	if err != nil {
		t.Fatal(err)
	}
	if err := certpem.Verify(chain, key.Public(), []string{name}); err != nil {
		t.Error(err)
	}
	if len(chain) < 2 {
		t.Errorf("the chain of %q is a leaf alone", p.File)
	}
	return certpem.Names(chain[0])
}

func autocert(dir string) adopt.Source { return adopt.Autocert(dir, "") }
