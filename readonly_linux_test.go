package certwright_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/certwright/certwright/internal/fakeca"
)

// nobodyChild does without root's rights what it can in its folder: it says which
// of its names are served and what is wrong with the others.
func nobodyChild() error {
	if os.Geteuid() == 0 {
		if err := errors.Join(syscall.Setgid(65534), syscall.Setuid(65534)); err != nil {
			return err
		}
	}
	o, err := openManager(os.Getenv)
	if err != nil {
		return err
	}
	say("warnings", strings.Join(o.dir.Warnings(), "; "))
	ctx := context.Background()
	_ = o.ManageSync(ctx, o.names)
	for _, s := range o.Status() {
		say(s.Names[0], leafOf(o.Manager, s.Names[0]) != nil, strings.ReplaceAll(s.LastError, "\n", " "))
	}
	return o.close(ctx)
}

// TestFolderThatIsNotAllOnesOwn has a user without root's rights start on the root
// of a volume, on a folder that is read-only, and on one in which some of what is
// there is root's: what is good and can be read is served, and what is wrong names
// the path. (F42, F4)
func TestFolderThatIsNotAllOnesOwn(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	each := func(t *testing.T, dir string, change func(path string, d fs.DirEntry) error) {
		t.Helper()
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			return errors.Join(err, change(path, d))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	mode := func(folder, file fs.FileMode) func(string, fs.DirEntry) error {
		return func(path string, d fs.DirEntry) error {
			if d.IsDir() {
				return os.Chmod(path, folder)
			}
			return os.Chmod(path, file)
		}
	}
	own := func(path string, _ fs.DirEntry) error { return os.Chown(path, 65534, 65534) }
	tests := []struct {
		name    string
		prepare func(t *testing.T, dir string)
		old     string // what is said of the name that was stored; empty: it is served without a word
		new     string
	}{
		{"volume", func(t *testing.T, dir string) {
			each(t, dir, own)
			if err := os.Mkdir(filepath.Join(dir, "lost+found"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, "", ""},
		{"read-only", func(t *testing.T, dir string) { each(t, dir, mode(0o555, 0o444)) }, "", "permission denied"},
		{"locks are root's", func(t *testing.T, dir string) {
			each(t, dir, own)
			each(t, filepath.Join(dir, "locks"), func(path string, _ fs.DirEntry) error { return os.Chown(path, 0, 0) })
		}, "", filepath.FromSlash("/locks")},
		{"certificates are root's", func(t *testing.T, dir string) {
			each(t, dir, own)
			each(t, filepath.Join(dir, "v1", "certs"), func(path string, _ fs.DirEntry) error { return os.Chown(path, 0, 0) })
		}, filepath.FromSlash("/v1/certs"), filepath.FromSlash("/v1/certs")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, d := range []string{dir, filepath.Dir(dir)} {
				if err := os.Chmod(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			ca, vars := serveCA(t, dir, fakeca.Options{}, "a.test")
			if _, err := issueAndRenew(variables(vars)); err != nil {
				t.Fatal(err)
			}
			tt.prepare(t, dir)
			orders := len(ca.Orders())
			c := startChild(t, "nobody", append(vars, childNames+"=a.test,b.test")...)
			if got := c.expect("warnings"); (tt.name == "read-only") != strings.Contains(got, "nothing can be stored in "+dir) {
				t.Errorf("warnings: %s", got)
			}
			for i, want := range []string{tt.old, tt.new} {
				name := []string{"a.test", "b.test"}[i]
				served, said, _ := strings.Cut(c.expect(name), " ")
				if served != fmt.Sprint(want == "") || !strings.Contains(said, want) || want == "" && said != "" {
					t.Errorf("%s is served: %s; said is %q", name, served, said)
				}
			}
			if err := c.wait(); err != nil {
				t.Error(err)
			}
			want := orders
			if tt.name == "volume" {
				want++
			}
			if n := len(ca.Orders()); n != want {
				t.Errorf("%d orders, want %d", n, want)
			}
		})
	}
}

func init() { roles["nobody"] = nobodyChild }
