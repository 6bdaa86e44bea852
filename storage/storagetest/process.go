package storagetest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// taskVariable is the environment variable that makes the test binary a child.
const taskVariable = "CERTWRIGHT_STORAGETEST_TASK"

// task is what a child process does.
type task struct {
	Role    string // a key of roles
	Opener  string
	Address string
	Key     string // the value's key or the lock's name
	Count   int
	Folder  string // for what the children note beside the backend

	Patience time.Duration // how long to wait for what must happen
}

// Main runs the tests of m and exits, like the TestMain that testing makes. In a
// process that the kit started itself it does that process's part instead, with
// the opener of the test's Backend. It is called from TestMain, which does
// nothing before.
func Main(m *testing.M, openers ...Opener) {
	if text := os.Getenv(taskVariable); text != "" {
		os.Exit(runChild(text, openers))
	}
	os.Exit(m.Run())
}

// child is a process that the kit started, seen from the test.
type child struct {
	tb    testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string // what it says, closed at its end
	once  sync.Once   // waits for the process
}

// startChild starts a process at its task and waits until it is ready.
func startChild(tb testing.TB, b Backend, k task) *child {
	tb.Helper()
	k.Opener, k.Patience = b.Opener.Name, patienceOf(tb)
	text, err := json.Marshal(k)
	if err != nil {
		tb.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	c := &child{tb: tb, cmd: exec.Command(exe, "-test.run=^$"), lines: make(chan string, 16)}
	c.cmd.Env = append(os.Environ(), taskVariable+"="+string(text))
	c.cmd.Stderr = os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		tb.Fatalf("starting the test binary again: %v", err)
	}
	go func() {
		defer close(c.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			c.lines <- s.Text()
		}
	}()
	tb.Cleanup(c.kill)
	c.want("ready")
	return c
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// say sends the child a line.
func (c *child) say(line string) {
	c.tb.Helper()
	if _, err := io.WriteString(c.stdin, line+"\n"); err != nil {
		c.tb.Fatalf("telling a child %q: %v", line, err)
	}
}

// hear returns the child's next line.
func (c *child) hear() string {
	c.tb.Helper()
	timer := time.NewTimer(4 * patienceOf(c.tb))
	defer timer.Stop()
	select {
	case line, ok := <-c.lines:
		if !ok {
			c.tb.Fatal("a child process ended early: see its error above, and that TestMain calls storagetest.Main")
		}
		return line
	case <-timer.C:
		c.tb.Fatal("a child process says nothing")
	}
	return ""
}

// want checks the child's next line.
func (c *child) want(line string) {
	c.tb.Helper()
	if got := c.hear(); got != line {
		c.tb.Fatalf("a child process says %q, want %q", got, line)
	}
}

// ask sends a line and returns the answer.
func (c *child) ask(line string) string {
	c.tb.Helper()
	c.say(line)
	return c.hear()
}

// kill ends the process at once and waits for its end. It may be called again.
func (c *child) kill() {
	c.once.Do(func() {
		_ = c.cmd.Process.Kill() // it may have ended by itself
		for range c.lines {
			continue // the reader ends with the process
		}
		_ = c.cmd.Wait() // says that it was killed
	})
}

// parent is the test, seen from a child process.
type parent struct {
	in *bufio.Scanner
}

// next returns the next line from the test, or false when the test is gone.
func (p *parent) next() (string, bool) {
	ok := p.in.Scan()
	return p.in.Text(), ok
}

func (p *parent) say(line string) { fmt.Println(line) }

// runChild does a child's task and returns the exit code.
func runChild(text string, openers []Opener) int {
	var k task
	err := json.Unmarshal([]byte(text), &k)
	if err == nil {
		err = k.run(&parent{in: bufio.NewScanner(os.Stdin)}, openers)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "storagetest: process %d, %s: %s\n", os.Getpid(), k.Role, strings.TrimSpace(err.Error()))
		return 1
	}
	return 0
}

func (k task) run(p *parent, openers []Opener) error {
	i := slices.IndexFunc(openers, func(o Opener) bool { return o.Name == k.Opener })
	if i < 0 {
		return fmt.Errorf("no opener %q was given to Main", k.Opener)
	}
	s, err := openers[i].Open(k.Address)
	if err != nil {
		return err
	}
	role := roles()[k.Role]
	if role == nil {
		return fmt.Errorf("no such task")
	}
	p.say("ready")
	if err := role(k, s, p); err != nil {
		return err
	}
	return closeStorage(s)
}
