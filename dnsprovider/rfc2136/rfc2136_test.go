package rfc2136_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/dnsprovider"
	"github.com/certwright/certwright/dnsprovider/internal/providertest"
	"github.com/certwright/certwright/dnsprovider/rfc2136"
	"github.com/certwright/certwright/internal/bind"
)

var _ dnsprovider.Provider = (*rfc2136.Provider)(nil)

const otherSecret = "SFVTSEhVU0ggaXMgYSBzZWNyZXQgb2Ygbm9ib2R5Lg=="

func newProvider(t *testing.T, c rfc2136.Config) *rfc2136.Provider {
	t.Helper()
	p, err := rfc2136.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// wantError looks for texts in an error, and that no secret is in it.
func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	providertest.WantError(t, err, []string{otherSecret[:12], bind.Secret[:12]}, texts...)
}

func TestUpdatesAtBIND(t *testing.T) {
	s := bind.Start(t, bind.Options{Zones: []string{"example.com"}})
	s.Update(t, "example.com", `_acme-challenge.example.com. 60 TXT "foreign"`)
	p := newProvider(t, rfc2136.Config{Server: s.Addr, KeyName: "Certwright-Test", Secret: bind.Secret})
	want := func(texts ...string) {
		t.Helper()
		if got := s.TXT(t, 0, "_acme-challenge.example.com"); !slices.Equal(got, texts) {
			t.Errorf("the zone has %q, want %q", got, texts)
		}
	}
	long := `issuer.example; "accounturi"=\` + strings.Repeat("x", 300)
	for _, value := range []string{"one", "two", "two", long} { // what is there already is no error
		added, err := p.AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", value))
		if err != nil || !slices.Equal(added, providertest.Texts("_acme-challenge", value)) {
			t.Fatal(added, err)
		}
	}
	want("foreign", long, "one", "two")
	for _, value := range []string{"one", "one", long} { // what is not there neither
		if deleted, err := p.DeleteRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", value)); err != nil || !slices.Equal(deleted, providertest.Texts("_acme-challenge", value)) {
			t.Fatal(deleted, err)
		}
	}
	want("foreign", "two")
	if _, err := p.AppendRecords(t.Context(), "example.com.", providertest.Texts("@", "apex")); err != nil || !slices.Equal(s.TXT(t, 0, "example.com"), []string{"apex"}) {
		t.Error(err, s.TXT(t, 0, "example.com"))
	}
}

func TestWritersOfOneNameLoseNothing(t *testing.T) {
	s := bind.Start(t, bind.Options{Zones: []string{"example.com"}})
	p := newProvider(t, rfc2136.Config{Server: s.Addr, KeyName: bind.KeyName, Algorithm: "HMAC-SHA256.", Secret: bind.Secret})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := p.AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", fmt.Sprint("value", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := s.TXT(t, 0, "_acme-challenge.example.com"); len(got) != 20 {
		t.Errorf("the zone has %q", got)
	}
}

func TestRefusalsOfBIND(t *testing.T) {
	s := bind.Start(t, bind.Options{Zones: []string{"example.com"}, Policy: fmt.Sprintf("grant %q name _acme-challenge.example.com. TXT;", bind.KeyName)})
	right := rfc2136.Config{Server: s.Addr, KeyName: bind.KeyName, Secret: bind.Secret}
	for name, test := range map[string]struct {
		change func(*rfc2136.Config)
		zone   string
		record []libdns.Record
		texts  []string
	}{
		"key name":  {func(c *rfc2136.Config) { c.KeyName = "other" }, "example.com.", providertest.Texts("_acme-challenge", "one"), []string{"BADKEY", `no key "other" of hmac-sha256`}},
		"algorithm": {func(c *rfc2136.Config) { c.Algorithm = "sha512" }, "example.com.", providertest.Texts("_acme-challenge", "one"), []string{"BADKEY", "of hmac-sha512"}},
		"secret":    {func(c *rfc2136.Config) { c.Secret = otherSecret }, "example.com.", providertest.Texts("_acme-challenge", "one"), []string{"BADSIG", "the Secret"}},
		"policy":    {func(*rfc2136.Config) {}, "example.com.", providertest.Texts("_acme-challenge.www", "one"), []string{"REFUSED", "update-policy", "certwright-test"}},
		"zone":      {func(*rfc2136.Config) {}, "example.net.", providertest.Texts("_acme-challenge", "one"), []string{"NOTAUTH", "primary", `zone "example.net"`}},
		"name":      {func(*rfc2136.Config) {}, "example.com.", providertest.Texts("_acme-challenge.example.net.", "one"), []string{"NOTZONE", "not in this zone"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := right
			test.change(&c)
			_, err := newProvider(t, c).AppendRecords(t.Context(), test.zone, test.record)
			wantError(t, err, append(test.texts, "rfc2136: adding records to zone", s.Addr)...)
			_, err = newProvider(t, c).DeleteRecords(t.Context(), test.zone, test.record)
			wantError(t, err, append(test.texts, "rfc2136: deleting records from zone")...)
		})
	}
	if got := s.TXT(t, 0, "_acme-challenge.example.com"); len(got) > 0 {
		t.Errorf("the zone has %q", got)
	}
}

// serve answers over TCP on loopback until the test ends.
func serve(t *testing.T, answer dns.HandlerFunc) rfc2136.Config {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{Listener: l, Handler: answer, TsigSecret: map[string]string{bind.KeyName: bind.Secret}}
	srv.MsgAcceptFunc = func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept } // updates too
	started, ended := make(chan struct{}), make(chan error)
	srv.NotifyStartedFunc = func() { close(started) }
	go func() { ended <- srv.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		if err := srv.Shutdown(); err != nil {
			t.Error(err)
		}
		<-ended
	})
	return rfc2136.Config{Server: l.Addr().String(), KeyName: bind.KeyName, Secret: bind.Secret}
}

func TestClockThatDiffers(t *testing.T) {
	there := time.Now().Add(-time.Hour)
	conf := serve(t, func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetRcode(r, dns.RcodeNotAuth)
		sig := *r.IsTsig()
		sig.Error, sig.OtherLen = dns.RcodeBadTime, 6
		sig.OtherData = fmt.Sprintf("%x", binary.BigEndian.AppendUint64(nil, uint64(there.Unix()))[2:])
		m.Extra = append(m.Extra, &sig)
		_ = w.WriteMsg(m)
	})
	_, err := newProvider(t, conf).AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "one"))
	wantError(t, err, "BADTIME", "clock", "there "+there.UTC().Format(time.RFC3339))
}

func TestRefusalsOfServers(t *testing.T) {
	for code, text := range map[int]string{
		dns.RcodeServerFailure: "journal", dns.RcodeNotImplemented: "no updates", dns.RcodeFormatError: "FORMERR", dns.RcodeNotAuth: "primary", 11: "11",
	} {
		conf := serve(t, func(w dns.ResponseWriter, r *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(r, code)) })
		_, err := newProvider(t, conf).AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "one"))
		wantError(t, err, text)
	}
}

// TestLostReplyIsAskedForAgain: an update may come twice.
func TestLostReplyIsAskedForAgain(t *testing.T) {
	var mu sync.Mutex
	updates := 0
	conf := serve(t, func(w dns.ResponseWriter, r *dns.Msg) {
		mu.Lock()
		defer mu.Unlock()
		if updates++; updates == 1 {
			_ = w.Close()
			return
		}
		_ = w.WriteMsg(new(dns.Msg).SetReply(r))
	})
	if _, err := newProvider(t, conf).AppendRecords(t.Context(), "example.com.", providertest.Texts("_acme-challenge", "one")); err != nil {
		t.Error(err)
	}
	if updates != 2 {
		t.Errorf("%d updates", updates)
	}
}

func TestContextEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // and nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	p := newProvider(t, rfc2136.Config{Server: l.Addr().String(), KeyName: bind.KeyName, Secret: bind.Secret})
	_, err = p.AppendRecords(ctx, "example.com.", providertest.Texts("_acme-challenge", "one"))
	wantError(t, err, "over TCP")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestConfigErrors(t *testing.T) {
	right := rfc2136.Config{Server: "192.0.2.1", KeyName: "key", Secret: otherSecret}
	for name, test := range map[string]struct {
		change      func(*rfc2136.Config)
		field, text string
	}{
		"no server":       {func(c *rfc2136.Config) { c.Server = "" }, "Config.Server", "empty"},
		"a scheme":        {func(c *rfc2136.Config) { c.Server = "tcp://192.0.2.1:53" }, "Config.Server", "host[:port]"},
		"a service":       {func(c *rfc2136.Config) { c.Server = "192.0.2.1:domain" }, "Config.Server", "1 to 65535"},
		"port 0":          {func(c *rfc2136.Config) { c.Server = "192.0.2.1:0" }, "Config.Server", "1 to 65535"},
		"port 65536":      {func(c *rfc2136.Config) { c.Server = "192.0.2.1:65536" }, "Config.Server", "1 to 65535"},
		"two servers":     {func(c *rfc2136.Config) { c.Server = "192.0.2.1,192.0.2.2" }, "Config.Server", "one server"},
		"port alone":      {func(c *rfc2136.Config) { c.Server = ":53" }, "Config.Server", "host[:port]"},
		"a path":          {func(c *rfc2136.Config) { c.Server = "ns1.example.com/x" }, "Config.Server", "host[:port]"},
		"brackets":        {func(c *rfc2136.Config) { c.Server = "[ns1]" }, "Config.Server", "host[:port]"},
		"no key":          {func(c *rfc2136.Config) { c.KeyName, c.Secret = "", "" }, "Config.KeyName", "without a TSIG key"},
		"no key name":     {func(c *rfc2136.Config) { c.KeyName = "" }, "Config.KeyName", "empty"},
		"a bad key name":  {func(c *rfc2136.Config) { c.KeyName = `"key"` }, "Config.KeyName", "no name"},
		"a long key name": {func(c *rfc2136.Config) { c.KeyName = strings.Repeat("x", 64) }, "Config.KeyName", "no name"},
		"no secret":       {func(c *rfc2136.Config) { c.Secret = "" }, "Config.Secret", "base64"},
		"plain secret":    {func(c *rfc2136.Config) { c.Secret = otherSecret[:13] + "!" }, "Config.Secret", "base64"},
		"a line break":    {func(c *rfc2136.Config) { c.Secret += "\n" }, "Config.Secret", "base64"},
		"md5":             {func(c *rfc2136.Config) { c.Algorithm = "HMAC-MD5.SIG-ALG.REG.INT." }, "Config.Algorithm", "hmac-sha256"},
		"no algorithm":    {func(c *rfc2136.Config) { c.Algorithm = "hmac-" }, "Config.Algorithm", "hmac-sha512"},
		"sha3":            {func(c *rfc2136.Config) { c.Algorithm = "hmac-sha3-256" }, "Config.Algorithm", `"hmac-sha3-256" is none`},
	} {
		t.Run(name, func(t *testing.T) {
			c := right
			test.change(&c)
			_, err := rfc2136.New(c)
			wantError(t, err, test.text, "rfc2136: ")
			if e, ok := errors.AsType[*certwright.ConfigError](err); !ok || e.Field != test.field {
				t.Errorf("%#v", err)
			}
		})
	}
}

func TestConfigsThatAreRight(t *testing.T) {
	for _, server := range []string{"192.0.2.1", "192.0.2.1:5353", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:53", "bind", "ns1.example.com.", "ns1.example.com:53", "fe80::1%eth0"} {
		for _, algorithm := range []string{"", "hmac-sha1", "HMAC-SHA224", "sha256", "hmac-sha384.", "hmac_sha512", "HMACSHA512"} {
			if _, err := rfc2136.New(rfc2136.Config{Server: server, KeyName: "key.example.", Algorithm: algorithm, Secret: otherSecret}); err != nil {
				t.Errorf("%q, %q: %v", server, algorithm, err)
			}
		}
	}
}

func TestPrintsNoSecret(t *testing.T) {
	conf := rfc2136.Config{Server: "192.0.2.1", KeyName: "key", Secret: otherSecret}
	p := newProvider(t, conf)
	if p.String() != "rfc2136" {
		t.Errorf("its name is %q", p)
	}
	for _, v := range []any{conf, &conf, p, []any{conf, p}, struct{ P *rfc2136.Provider }{p}} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		s := fmt.Sprintf("%v %+v %#v %s %q %x %d %s", v, v, v, v, v, v, v, text)
		if strings.Contains(s, otherSecret) || strings.Contains(s, fmt.Sprintf("%x", otherSecret)) {
			t.Errorf("%s", s)
		}
	}
}
