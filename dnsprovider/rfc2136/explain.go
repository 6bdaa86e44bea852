package rfc2136

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// What to do about a server's refusals (RFC 2136 §2.2).
var cures = map[int]string{
	dns.RcodeRefused:        "let the zone's update-policy grant this key, %s, TXT records of the name",
	dns.RcodeNotZone:        "the name is not in this zone",
	dns.RcodeNotAuth:        "NOTAUTH: the server is not the zone's primary, or the zone takes no updates",
	dns.RcodeServerFailure:  "the server's log says why; often it may not write its zone file or journal",
	dns.RcodeNotImplemented: "the server takes no updates at all",
	dns.RcodeFormatError:    "the server does not understand the update; is it a DNS server that takes them?",
	dns.RcodeYXDomain:       "a record of another type is in the way",
}

// explain adds to an error what to do about it. The module tells of an answer no
// more than a text.
func (p *Provider) explain(ctx context.Context, zone string, err error) error {
	var name string
	code := -1
	_, _ = fmt.Sscanf(err.Error(), "dns response error code %q (%d)", &name, &code) // of the module; or nothing
	if errors.Is(err, dns.ErrAuth) {                                                // what the dns package makes of NOTAUTH
		code = dns.RcodeNotAuth
	}
	if code == dns.RcodeNotAuth || errors.Is(err, dns.ErrSig) || errors.Is(err, dns.ErrTime) {
		if refused := p.refusedKey(ctx, zone); refused != nil {
			return fmt.Errorf("%w: %w", err, refused)
		}
	}
	cure := cures[code]
	switch {
	case code == dns.RcodeRefused:
		cure = fmt.Sprintf(cure, strings.TrimSuffix(p.module.KeyName, "."))
	case cure != "":
	case unanswered(err):
		cure = "see whether the server takes updates over TCP from here"
	default:
		return err
	}
	return fmt.Errorf("%w; %s", err, cure)
}

// unanswered reports whether the server did not answer.
func unanswered(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// refusedKey asks the server for the zone's SOA, signed like the update, and says
// what is wrong with the key. The answer to the update had it, but the module shows
// nothing of what it cannot verify. nil: the key is right, or nobody knows.
func (p *Provider) refusedKey(ctx context.Context, zone string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	client := dns.Client{Net: "tcp"}
	conn, err := client.DialContext(ctx, p.module.Server)
	if err != nil {
		return nil
	}
	defer conn.Close()
	if at, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(at) // else the reads below fail
	}
	conn.TsigSecret = map[string]string{p.module.KeyName: p.module.Key}
	ask := new(dns.Msg).SetQuestion(dns.Fqdn(zone), dns.TypeSOA)
	ask.SetTsig(p.module.KeyName, p.module.KeyAlg, 300, time.Now().Unix())
	if err := conn.WriteMsg(ask); err != nil {
		return nil
	}
	raw, err := conn.ReadMsgHeader(nil)
	if err != nil {
		return nil
	}
	reply := new(dns.Msg)
	if err := reply.Unpack(raw); err != nil || reply.IsTsig() == nil {
		return nil
	}
	key := strings.TrimSuffix(p.module.KeyName, ".")
	switch sig := reply.IsTsig(); sig.Error {
	case dns.RcodeBadKey:
		return fmt.Errorf("BADKEY: the server has no key %q of %s; see its configuration for name and algorithm", key, strings.TrimSuffix(p.module.KeyAlg, "."))
	case dns.RcodeBadSig:
		return fmt.Errorf("BADSIG: the Secret is not that of the server's key %q", key)
	case dns.RcodeBadTime:
		return fmt.Errorf("BADTIME: this machine's clock and the server's differ by more than 5 minutes%s; set them", serverTime(sig.OtherData))
	}
	return nil
}

// serverTime is the time that a server has sent (RFC 8945 §5.2.3).
func serverTime(other string) string {
	raw, err := hex.DecodeString(other)
	if err != nil || len(raw) != 6 {
		return ""
	}
	at := time.Unix(int64(binary.BigEndian.Uint64(append([]byte{0, 0}, raw...))), 0)
	return fmt.Sprintf(" (here it is %s, there %s)", time.Now().UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339))
}
