//go:build unix

package filelock_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/filelock"
)

// Tests that need other processes start this test binary again, as a child that
// does what its role says until it is killed or its input ends.

const roleVariable = "CERTWRIGHT_TEST_ROLE"

// roles are what a child can do in the folder dir with locks of that TTL.
var roles = map[string]func(f *filelock.Folder, dir string) error{
	"count": countChild,
	"log":   logChild,
	"hold":  holdChild,
	"turns": turnsChild,
}

func TestMain(m *testing.M) {
	name, rest, ok := strings.Cut(os.Getenv(roleVariable), " ")
	if !ok {
		os.Exit(m.Run())
	}
	ttl, dir, _ := strings.Cut(rest, " ")
	d, err := time.ParseDuration(ttl)
	if err == nil {
		f := filelock.New(dir, d)
		err = roles[name](f, dir)
		f.Close()
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// turn does something while it holds the lock "a".
func turn(f *filelock.Folder, do func() error) error {
	l, err := f.Lock(context.Background(), "a")
	if err != nil {
		return err
	}
	return errors.Join(l.Held(), do(), l.Held(), l.Unlock())
}

const turnsEach = 200

// countChild adds one to a number in a file, 200 times.
func countChild(f *filelock.Folder, dir string) error {
	path := filepath.Join(dir, "counter")
	for range turnsEach {
		err := turn(f, func() error {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(string(content))
			return errors.Join(err, os.WriteFile(path, fmt.Append(nil, n+1), 0o600))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// logChild notes in a file when it gets the lock and when it gives it up.
func logChild(f *filelock.Folder, dir string) error {
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	for i := range turnsEach {
		err := turn(f, func() error {
			_, err := fmt.Fprintln(log, "in", os.Getpid())
			fmt.Println("in", i)
			_, err2 := fmt.Fprintln(log, "out", os.Getpid())
			return errors.Join(err, err2)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// holdChild holds the lock and does what it is told.
func holdChild(f *filelock.Folder, _ string) error {
	l, err := f.Lock(context.Background(), "a")
	if err != nil {
		return err
	}
	fmt.Println("locked", time.Now().UnixNano())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch in.Text() {
		case "held":
			err = l.Held()
		case "unlock":
			err = l.Unlock()
		}
		switch {
		case errors.Is(err, filelock.ErrLost):
			fmt.Println("answer lost")
		case err == nil:
			fmt.Println("answer fine")
		default:
			return err
		}
	}
	return nil
}

type child struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string // closed when the child has closed its output
}

func start(t testing.TB, role string, ttl time.Duration, dir string) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: exec.Command(exe), lines: make(chan string, 1000)}
	c.cmd.Env = append(os.Environ(), roleVariable+"="+role+" "+ttl.String()+" "+dir)
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
	t.Cleanup(func() { _ = c.kill() })
	return c
}

// expect waits for a line that begins with the word and returns what follows.
func (c *child) expect(word string) string {
	c.t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		select {
		case line, ok := <-c.lines:
			if rest, found := strings.CutPrefix(line, word+" "); found {
				return rest
			}
			if !ok || strings.HasPrefix(line, "error") {
				c.t.Fatalf("the child ended without %q: %s", word, line)
			}
		case <-late.C:
			c.t.Fatalf("the child did not say %q", word)
		}
	}
}

// ask tells the child to do something and returns what came of it.
func (c *child) ask(what string) string {
	c.t.Helper()
	if _, err := io.WriteString(c.in, what+"\n"); err != nil {
		c.t.Fatal(err)
	}
	return c.expect("answer")
}

func (c *child) signal(s syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// wait reads what is left of the output and returns how the child ended.
func (c *child) wait() error {
	last := ""
	for line := range c.lines {
		last = line
	}
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", last, err)
	}
	return nil
}

func (c *child) kill() error {
	_ = c.cmd.Process.Kill()
	return c.wait()
}

func newFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What processes do under the lock, none of them loses (S7).
func TestProcessesTakeTurns(t *testing.T) {
	dir := t.TempDir()
	newFile(t, filepath.Join(dir, "counter"), "0")
	var all []*child
	for i := range 4 {
		all = append(all, start(t, "count", time.Duration(i+1)*time.Hour/4, dir))
	}
	for _, c := range all {
		if err := c.wait(); err != nil {
			t.Error(err)
		}
	}
	got, err := os.ReadFile(filepath.Join(dir, "counter"))
	if want := strconv.Itoa(4 * turnsEach); err != nil || string(got) != want {
		t.Errorf("the counter is %s, %v; want %s", got, err, want)
	}
}

// The lock of a process that is killed somewhere is never held by two. It is free
// at once, but after a TTL when that was between its try and its record.
func TestKilledProcesses(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	newFile(t, log, "")
	var all []*child
	killed := make(map[string]bool)
	for range 7 {
		all = append(all, start(t, "log", time.Hour, dir))
	}
	for i, c := range all[:3] {
		for range 10 * (i + 1) {
			c.expect("in")
		}
		killed[strconv.Itoa(c.cmd.Process.Pid)] = true
		_ = c.kill()
	}
	for _, c := range all[3:] {
		if err := c.wait(); err != nil {
			t.Error(err)
		}
	}
	content, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	inside, turns := "", 0
	for line := range strings.Lines(string(content)) {
		word, pid, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case word == "in" && (inside == "" || killed[inside]):
			inside = pid
			turns++
		case word == "out" && inside == pid:
			inside = ""
		default:
			t.Fatalf("%s while %q had the lock", line, inside)
		}
	}
	if turns < 4*turnsEach {
		t.Errorf("%d turns", turns)
	}
}

// Each one of a chain is killed while it certainly holds the lock.
func TestKilledHolder(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir, time.Hour)
	c := start(t, "hold", time.Hour, dir)
	c.expect("locked")
	for range 3 {
		next := start(t, "hold", time.Hour, dir)
		select {
		case line := <-next.lines:
			t.Fatalf("beside a holder another says %s", line)
		case <-time.After(100 * time.Millisecond):
		}
		_ = c.kill()
		next.expect("locked")
		c = next
	}
	_ = c.kill()
	mustUnlock(t, mustLock(t, f, "a"))
	// Nobody has left a number, but those who were killed may have left others.
	if got := files(t, dir); !slices.Contains(got, "5") {
		t.Errorf("the lock's folder holds %q, want 5", got)
	}
}

// A holder that is stopped is replaced after its own TTL, sees that when it goes
// on, and frees nobody's lock (F50, S4).
func TestStoppedHolder(t *testing.T) {
	const ttl = 300 * time.Millisecond
	dir := t.TempDir()
	f := open(t, dir, time.Hour)
	c := start(t, "hold", ttl, dir)
	c.expect("locked")
	c.signal(syscall.SIGSTOP)
	begun := time.Now()
	l := mustLock(t, f, "a")
	if took := time.Since(begun); took < ttl {
		t.Errorf("taken over after %v, before its TTL", took)
	}
	c.signal(syscall.SIGCONT)
	for _, what := range []string{"held", "unlock"} {
		if got := c.ask(what); got != "lost" {
			t.Errorf("%s says %s", what, got)
		}
	}
	if err := l.Held(); err != nil {
		t.Error(err)
	}
	third := open(t, dir, time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 2*ttl)
	defer cancel()
	if _, err := third.Lock(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a third got the lock: %v", err)
	}
	mustUnlock(t, l)
}
