// Package bind runs BIND 9 in tests and benchmarks: a primary with a TSIG key and an update policy,
// and secondaries that refresh when the test says so.
package bind

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// What the key of each Server is.
const (
	KeyName   = "certwright-test."
	Algorithm = "hmac-sha256"
	Secret    = "Y2VydHdyaWdodCB0ZXN0cyB0YWxrIHRvIEJJTkQgOS4=" // base64
)

// Options are what runs. Zones must not be empty.
type Options struct {
	Zones       []string // such as "example.com"
	Secondaries int      // of all zones

	// Policy is the update policy of each zone. Empty: the key may change each TXT.
	Policy string
}

// Server is a primary and its secondaries.
type Server struct {
	Addr  string   // host:port of the primary
	Addrs []string // of all, the primary first
	Port  string   // of all

	zones     []string
	instances []*instance
}

// instance is one named.
type instance struct {
	addr  string // where it is asked
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has ended
	log   *logBuffer
	front *forwarder // nil: it is asked itself
}

type logBuffer struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Start is New in a folder of the test's; they end with it, and a failure has their
// logs. Without named the test is skipped, and fails when CI is true.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := New(t.TempDir(), o)
	if errors.Is(err, ErrNone) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			for _, in := range s.instances {
				t.Logf("log of named at %s:\n%s", in.addr, in.log)
			}
		}
	})
	return s
}

// ErrNone means that there is no named on the machine.
var ErrNone = errors.New("no named; Debian's package is bind9")

// New runs them until Close, each in a folder below dir and on an address of loopback
// of its own. The names of zone Z's servers are ns1.Z, ns2.Z and so on.
func New(dir string, o Options) (*Server, error) {
	program, err := exec.LookPath("named")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/named")
	}
	if err != nil {
		return nil, ErrNone
	}
	for range 10 { // the port that was free may be another's by now
		s := &Server{zones: o.Zones}
		err := s.start(program, dir, o)
		if err == nil {
			return s, nil
		}
		s.Close()
		if !errors.Is(err, errTaken) {
			return nil, err
		}
	}
	return nil, errors.New("no port of loopback stayed free")
}

// Close ends all of them.
func (s *Server) Close() {
	for _, in := range s.instances {
		in.kill()
	}
}

var errTaken = errors.New("the port is taken")

// patience is for what is over within a second unless the machine is very busy.
const patience = time.Minute

func (s *Server) start(program, dir string, o Options) error {
	if err := s.run(program, dir, o); err != nil {
		return err
	}
	// A secondary that finds no primary asks again much later.
	if err := s.ready(0); err != nil {
		return err
	}
	for range o.Secondaries {
		if err := s.run(program, dir, o); err != nil {
			return err
		}
	}
	for i := range o.Secondaries {
		if err := s.ready(i + 1); err != nil {
			return err
		}
	}
	s.Addr = s.Addrs[0]
	return nil
}

// freePort returns a port that is free for TCP and UDP.
func freePort(host string) (string, error) {
	for {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return "", err
		}
		c, err := net.ListenPacket("udp", l.Addr().String())
		_ = l.Close()
		if err == nil {
			_, port, _ := net.SplitHostPort(c.LocalAddr().String())
			return port, c.Close()
		}
	}
}

// run starts the next named.
func (s *Server) run(program, dir string, o Options) error {
	i := len(s.instances)
	dir, err := os.MkdirTemp(dir, "named")
	if err != nil {
		return err
	}
	port, err := freePort("127.0.0.1")
	if err != nil {
		return err
	}
	if i == 0 {
		s.Port = port
	}
	if err := s.configure(dir, o, port); err != nil {
		return err
	}
	in := &instance{
		addr:  net.JoinHostPort(fmt.Sprintf("127.0.0.%d", i+1), s.Port),
		cmd:   exec.Command(program, "-g", "-n", "1", "-c", filepath.Join(dir, "named.conf")),
		ended: make(chan struct{}), log: new(logBuffer),
	}
	if i > 0 {
		if in.front, err = forward(in.addr, net.JoinHostPort("127.0.0.1", port)); err != nil {
			return err
		}
	}
	in.cmd.Stdout, in.cmd.Stderr, in.cmd.Dir = in.log, in.log, dir
	if err := in.cmd.Start(); err != nil {
		if in.front != nil {
			in.front.close()
		}
		return err
	}
	go func() {
		defer close(in.ended)
		_ = in.cmd.Wait() // it was killed
	}()
	s.instances, s.Addrs = append(s.instances, in), append(s.Addrs, in.addr)
	return nil
}

func (in *instance) kill() {
	if in.front != nil {
		in.front.close()
	}
	_ = in.cmd.Process.Kill() // it may have ended
	<-in.ended
}

const conf = `
options {
	directory "%[1]s"; pid-file none; session-keyfile none; lock-file none;
	listen-on port %[2]s { 127.0.0.1; }; listen-on-v6 { none; };
	recursion no; dnssec-validation no; notify no; empty-zones-enable no;
	allow-transfer { 127.0.0.0/8; }; allow-notify { 127.0.0.0/8; };
	serial-query-rate 1000; tcp-clients 1000; tcp-listen-queue 1000; server-id none; version none;
};
controls { };
key "%[3]s" { algorithm %[4]s; secret "%[5]s"; };
`

// The minimum, for which a resolver keeps that there is no record, is long, and the
// refresh too, so that nothing happens but what the test does.
const zoneFile = `$ORIGIN %[1]s.
$TTL 300
@ SOA ns1 hostmaster 1 86400 86400 864000 300
`

// configure writes the files of the next named.
func (s *Server) configure(dir string, o Options, port string) error {
	text := fmt.Sprintf(conf, dir, port, KeyName, Algorithm, Secret)
	for _, zone := range o.Zones {
		file := filepath.Join(dir, zone+".zone")
		if len(s.instances) > 0 {
			text += fmt.Sprintf("zone %q { type secondary; primaries { 127.0.0.1 port %s; }; file %q; };\n", zone, s.Port, file)
			continue
		}
		policy := o.Policy
		if policy == "" {
			policy = fmt.Sprintf("grant %q zonesub TXT;", KeyName)
		}
		text += fmt.Sprintf("zone %q { type primary; file %q; update-policy { %s }; };\n", zone, file, policy)
		records := fmt.Sprintf(zoneFile, zone)
		for n := range 1 + o.Secondaries {
			records += fmt.Sprintf("@ NS ns%[1]d\nns%[1]d A 127.0.0.%[1]d\n", n+1)
		}
		if err := os.WriteFile(file, []byte(records), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "named.conf"), []byte(text), 0o600)
}

// ready waits until the i-th answers for all zones.
func (s *Server) ready(i int) error {
	in, bound := s.instances[i], time.After(patience)
	for _, zone := range s.zones {
		for {
			if _, err := s.serial(i, zone); err == nil {
				break
			}
			select {
			case <-in.ended:
				return fmt.Errorf("named at %s has ended: %s", in.addr, in.log)
			case <-bound:
				return fmt.Errorf("named at %s does not answer for zone %q: %s", in.addr, zone, in.log)
			case <-time.After(5 * time.Millisecond):
			}
			if strings.Contains(in.log.String(), "address in use") { // it goes on without
				in.kill()
				return errTaken
			}
		}
	}
	return nil
}

// Stop ends the i-th server, 0 being the primary.
func (s *Server) Stop(i int) { s.instances[i].kill() }
