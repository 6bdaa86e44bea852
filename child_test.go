//go:build unix

package certwright_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/durable"
	"github.com/certwright/certwright/internal/fakeca"
	"github.com/certwright/certwright/storage"
)

// Tests that need other processes start this test binary again, as a child that
// does what its role says until it is killed or told to end.

const (
	childRole  = "CERTWRIGHT_TEST_ROLE"
	childDir   = "CERTWRIGHT_TEST_DIR"
	childCA    = "CERTWRIGHT_TEST_CA"    // directory URL
	childNames = "CERTWRIGHT_TEST_NAMES" // with commas
	childKill  = "CERTWRIGHT_TEST_KILL"  // the system call of the store path before which the child kills itself
	childZone  = "CERTWRIGHT_TEST_ZONE"  // folder of the records of fileZone
	childLease = "CERTWRIGHT_TEST_LEASE" // TTL of locks; empty: the folder's own
)

// roles are what a child can do. Each returns an error when something went wrong
// that is no part of the test.
var roles = map[string]func() error{
	"loop":   loopChild,
	"once":   onceChild,
	"manage": manageChild,
	"hold":   holdChild,
	"answer": answerChild,
	"dns":    dnsChild,
}

// TestChild is not a test: it is the entry of a child.
func TestChild(t *testing.T) {
	role := roles[os.Getenv(childRole)]
	if role == nil {
		t.Skip("only in a child")
	}
	if err := role(); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// say tells the parent something.
func say(words ...any) { fmt.Println(words...) }

// opened is a Manager on a folder.
type opened struct {
	*Manager
	dir   *storage.Dir
	names []string
	calls atomic.Int64 // system calls of the store path
}

// close ends the Manager and what it is on.
func (o *opened) close(ctx context.Context) error {
	return errors.Join(o.Close(ctx), o.dir.Close())
}

// openManager opens a folder and a Manager on it as the variables say.
func openManager(env func(string) string) (*opened, error) {
	var options storage.DirOptions
	if s := env(childLease); s != "" {
		ttl, err := time.ParseDuration(s)
		if err != nil {
			return nil, err
		}
		options.LeaseTTL = ttl
	}
	dir, err := options.Open(env(childDir))
	if err != nil {
		return nil, err
	}
	o := &opened{dir: dir, names: strings.Split(env(childNames), ",")}
	watched := Storage(dir)
	if at, err := strconv.ParseInt(env(childKill), 10, 64); err == nil {
		watched = watchedDir{dir, at, &o.calls}
	}
	o.Manager, err = New(Config{
		AgreeToTerms: true, Directory: env(childCA), Storage: watched, Logger: slog.New(slog.DiscardHandler),
		HTTPPort: -1, TLSPort: -1, DisableRenewalInfo: true, CleanInterval: -1, Workers: 1,
	})
	return o, err
}

// watchedDir is a folder whose process ends before one of the system calls; 0
// only counts.
type watchedDir struct {
	*storage.Dir
	at    int64
	calls *atomic.Int64
}

func (d watchedDir) Store(ctx context.Context, key string, value []byte) error {
	return d.Dir.Store(durable.Watched(ctx, d.call), key, value)
}

func (d watchedDir) Delete(ctx context.Context, key string) error {
	return d.Dir.Delete(durable.Watched(ctx, d.call), key)
}

func (d watchedDir) call(string, string) {
	if d.calls.Add(1) == d.at {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// loopChild issues, and then renews one name after the other, for ever.
func loopChild() error {
	o, err := openManager(os.Getenv)
	if err != nil {
		return err
	}
	say("up")
	ctx := context.Background()
	_ = o.ManageSync(ctx, o.names)
	for i := 0; ; i++ {
		_ = o.Renew(ctx, o.names[i%len(o.names)]) // the CA refuses some
		say("renewed")
	}
}

// onceChild issues and renews each name once, and ends.
func onceChild() error {
	calls, err := issueAndRenew(os.Getenv)
	if err != nil {
		return err
	}
	say("calls", calls)
	return nil
}

// issueAndRenew is what onceChild does. A test does it itself where nobody is to
// be killed. It returns the number of system calls.
func issueAndRenew(env func(string) string) (calls int64, err error) {
	o, err := openManager(env)
	if err != nil {
		return 0, err
	}
	ctx := context.Background()
	errs := []error{o.ManageSync(ctx, o.names)}
	for _, name := range o.names {
		errs = append(errs, o.Renew(ctx, name))
	}
	errs = append(errs, o.close(ctx))
	return o.calls.Load(), errors.Join(errs...)
}

// variables looks up what startChild would be given.
func variables(vars []string) func(string) string {
	return func(name string) string {
		for _, v := range vars {
			if value, ok := strings.CutPrefix(v, name+"="); ok {
				return value
			}
		}
		return ""
	}
}

// child is a running child.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string // closed when the child has closed its output
	once  sync.Once
	err   error // of Wait
}

// startChild starts a child with variables of the form name=value.
func startChild(t *testing.T, role string, vars ...string) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: exec.Command(exe, "-test.run=^TestChild$"), lines: make(chan string, 1000)}
	c.cmd.Env = append(append(os.Environ(), childRole+"="+role), vars...)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			c.lines <- s.Text()
		}
	}()
	t.Cleanup(func() { c.kill() })
	return c
}

// expect waits for a line that begins with the word and returns what follows.
func (c *child) expect(word string) string {
	c.t.Helper()
	patience := time.NewTimer(2 * time.Minute)
	defer patience.Stop()
	for {
		select {
		case line, ok := <-c.lines:
			if !ok {
				c.t.Fatalf("the child ended (%v) without %q", c.wait(), word)
			}
			if rest, ok := strings.CutPrefix(line, word); ok {
				return strings.TrimSpace(rest)
			}
			if strings.HasPrefix(line, "error") {
				c.t.Fatalf("the child failed: %s", line)
			}
		case <-patience.C:
			c.t.Fatalf("the child did not say %q", word)
		}
	}
}

// tell writes a line to the child.
func (c *child) tell(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.in, line+"\n"); err != nil {
		c.t.Fatal(err)
	}
}

func (c *child) signal(s syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// wait reads what is left of the output and returns how the child ended.
func (c *child) wait() error {
	c.once.Do(func() {
		for line := range c.lines {
			if strings.HasPrefix(line, "error") {
				c.err = errors.New(line)
			}
		}
		c.err = errors.Join(c.cmd.Wait(), c.err)
	})
	return c.err
}

// kill ends the child at once, wherever it is.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.wait()
}

// killed reports whether a child ended by SIGKILL.
func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// serveCA makes a CA that children can reach and returns it with the variables
// for them.
func serveCA(t *testing.T, dir string, opt fakeca.Options, names ...string) (*fakeca.CA, []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opt.BaseURL = "http://" + l.Addr().String()
	ca := fakeca.New(opt)
	srv := httptest.NewUnstartedServer(http.Handler(ca))
	_ = srv.Listener.Close()
	srv.Listener = l
	srv.Config.ErrorLog = nil
	srv.Start()
	t.Cleanup(srv.Close)
	return ca, []string{childDir + "=" + dir, childCA + "=" + ca.Directory(), childNames + "=" + strings.Join(names, ",")}
}
