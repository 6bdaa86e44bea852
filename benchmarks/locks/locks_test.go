//go:build unix

// Package locks measures how long a lock on a folder takes: when it is free,
// when another process hands it on, and when the process that holds it is
// killed. It compares certwright's DirStorage with CertMagic's FileStorage and
// with a bare flock, side by side in one run:
//
//	go test -bench . ./locks
package locks

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"golang.org/x/sys/unix"

	"github.com/certwright/certwright/storage"
)

// locker is one of the compared locks.
type locker interface {
	lock(ctx context.Context, name string) (unlock func() error, err error)
}

// kinds are the compared locks, by name, each on a folder.
var kinds = []struct {
	name string
	open func(dir string) (locker, error)
	slow bool // hand-off and take-over take seconds
}{
	{"certwright", openCertwright, false},
	{"certmagic", openCertMagic, true},
	{"flock", openFlock, false},
}

type ours struct{ *storage.Dir }

func openCertwright(dir string) (locker, error) {
	s, err := storage.OpenDir(dir)
	return ours{s}, err
}

func (o ours) lock(ctx context.Context, name string) (func() error, error) {
	lease, err := o.Lock(ctx, name)
	if err != nil {
		return nil, err
	}
	return func() error { return lease.Unlock(ctx) }, nil
}

type theirs struct{ *certmagic.FileStorage }

func openCertMagic(dir string) (locker, error) {
	return theirs{&certmagic.FileStorage{Path: dir}}, nil
}

func (t theirs) lock(ctx context.Context, name string) (func() error, error) {
	if err := t.Lock(ctx, name); err != nil {
		return nil, err
	}
	return func() error { return t.Unlock(ctx, name) }, nil
}

type bare struct{ dir string }

func openFlock(dir string) (locker, error) { return bare{dir}, nil }

func (b bare) lock(_ context.Context, name string) (func() error, error) {
	f, err := os.OpenFile(filepath.Join(b.dir, name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil { // waits in the kernel
		return nil, err
	}
	return f.Close, nil
}

const (
	envKind = "LOCKS_KIND"
	envDir  = "LOCKS_DIR"
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(envKind); kind != "" {
		if err := child(kind, os.Getenv(envDir)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child does what its parent says on standard input, a word a line: "lock"
// locks and then prints the time in nanoseconds, "unlock" prints the time and
// then unlocks.
func child(kind, dir string) error {
	var l locker
	for _, k := range kinds {
		if k.name == kind {
			var err error
			if l, err = k.open(dir); err != nil {
				return err
			}
		}
	}
	ctx := context.Background()
	var unlock func() error
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch in.Text() {
		case "lock":
			var err error
			if unlock, err = l.lock(ctx, "name"); err != nil {
				return err
			}
			fmt.Println(time.Now().UnixNano())
		case "unlock":
			fmt.Println(time.Now().UnixNano())
			if err := unlock(); err != nil {
				return err
			}
		}
	}
	return nil
}

// process is a running child.
type process struct {
	cmd *exec.Cmd
	in  *os.File
	out *bufio.Scanner
}

func start(b *testing.B, kind, dir string) *process {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	p := &process{cmd: exec.Command(exe)}
	p.cmd.Env = append(os.Environ(), envKind+"="+kind, envDir+"="+dir)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	p.cmd.Stdin, p.in = r, w
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	r.Close()
	b.Cleanup(p.kill)
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	_ = p.in.Close()
}

func (p *process) say(b *testing.B, word string) {
	b.Helper()
	if _, err := fmt.Fprintln(p.in, word); err != nil {
		b.Fatal(err)
	}
}

func (p *process) time(b *testing.B) int64 {
	b.Helper()
	if !p.out.Scan() {
		b.Fatal("a child ended")
	}
	n, err := strconv.ParseInt(strings.TrimSpace(p.out.Text()), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// report gives the median and the slowest in milliseconds.
func report(b *testing.B, ns []int64) {
	slices.Sort(ns)
	b.ReportMetric(float64(ns[len(ns)/2])/1e6, "median-ms")
	b.ReportMetric(float64(ns[len(ns)-1])/1e6, "slowest-ms")
	b.ReportMetric(0, "ns/op")
}

func rounds(slow bool) int {
	if slow {
		return 5
	}
	return 100
}

// BenchmarkFree locks and unlocks what nobody else wants.
func BenchmarkFree(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			l, err := k.open(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			var ns []int64
			for range 200 {
				begin := time.Now()
				unlock, err := l.lock(b.Context(), "name")
				if err == nil {
					err = unlock()
				}
				if err != nil {
					b.Fatal(err)
				}
				ns = append(ns, int64(time.Since(begin)))
			}
			report(b, ns)
		})
	}
}

// BenchmarkHandOff measures from the unlock in one process to the lock in
// another that has been waiting for 50 ms.
func BenchmarkHandOff(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			dir := b.TempDir()
			holder, waiter := start(b, k.name, dir), start(b, k.name, dir)
			var ns []int64
			for range rounds(k.slow) {
				holder.say(b, "lock")
				holder.time(b)
				waiter.say(b, "lock")
				time.Sleep(50 * time.Millisecond)
				holder.say(b, "unlock")
				begin := holder.time(b)
				ns = append(ns, waiter.time(b)-begin)
				waiter.say(b, "unlock")
				waiter.time(b)
			}
			report(b, ns)
		})
	}
}

// BenchmarkTakeOver measures from the SIGKILL of the holder to the lock in
// another process that has been waiting for 50 ms.
func BenchmarkTakeOver(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			n := rounds(k.slow)
			if k.slow {
				n = 2
			}
			var ns []int64
			for range min(n, 30) {
				dir := b.TempDir()
				holder, waiter := start(b, k.name, dir), start(b, k.name, dir)
				holder.say(b, "lock")
				holder.time(b)
				waiter.say(b, "lock")
				time.Sleep(50 * time.Millisecond)
				begin := time.Now().UnixNano()
				if err := holder.cmd.Process.Kill(); err != nil {
					b.Fatal(err)
				}
				ns = append(ns, waiter.time(b)-begin)
				waiter.kill()
			}
			report(b, ns)
		})
	}
}
