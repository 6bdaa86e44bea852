package certwright_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
)

// changeStored changes what is stored for name, with a first line that says that
// it is whole.
func changeStored(t *testing.T, s Storage, name string, change func(body []byte) []byte) {
	t.Helper()
	value, err := s.Load(t.Context(), certKey(name))
	if err != nil {
		t.Fatal(err)
	}
	line, body, _ := bytes.Cut(value, []byte("\n"))
	kind, _, ok := bytes.Cut(line, []byte(" sha256 "))
	changed := change(bytes.Clone(body))
	if !ok || bytes.Equal(changed, body) {
		t.Fatalf("nothing was changed below %q", line)
	}
	text := fmt.Appendf(nil, "%s sha256 %x size %d\n%s", kind, sha256.Sum256(changed), len(changed), changed)
	if err := s.Store(t.Context(), certKey(name), text); err != nil {
		t.Fatal(err)
	}
}

// pemBlock returns where the first PEM block of a type is in body.
func pemBlock(t *testing.T, body []byte, kind string) (block *pem.Block, text []byte) {
	t.Helper()
	at := bytes.Index(body, []byte("-----BEGIN "+kind+"-----"))
	block, rest := pem.Decode(body[max(at, 0):])
	if at < 0 || block == nil {
		t.Fatalf("there is no %s in %q", kind, body)
	}
	return block, body[at : len(body)-len(rest)]
}

// A record is whole and its key is not one that fits: nothing is served for it,
// Status says so, it is told once, and it is replaced.
func TestKeyThatDoesNotFitIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		mem := storedBy(t, f, "a.example.com", "b.example.com")
		changeStored(t, mem, "a.example.com", func(body []byte) []byte {
			block, text := pemBlock(t, body, "PRIVATE KEY")
			return bytes.Replace(body, text, []byte(mixedKey(t, block.Bytes)), 1)
		})
		log, logs := observed(slog.LevelError)
		m := offline(t, f, func(c *Config) { c.Storage, c.Logger = mem, log })
		manage(t, m, "a.example.com", "b.example.com")
		for range 3 {
			if leafOf(m, "a.example.com") != nil {
				t.Error("a certificate without its key is served")
			}
		}
		mustLeaf(t, m, "b.example.com")
		if s := statusFor(t, m, "a.example.com"); !strings.Contains(s.Degraded, "cannot be parsed") {
			t.Errorf("Status says %q", s.Degraded)
		}
		if n := strings.Count(fmt.Sprint(logs.All()), "cannot be parsed"); n != 1 {
			t.Errorf("told %d times; want once", n)
		}
		f.set(func() { f.err = nil })
		time.Sleep(time.Hour)
		mustLeaf(t, m, "a.example.com")
		if s := statusFor(t, m, "a.example.com"); s.Degraded != "" || s.State != StateValid {
			t.Errorf("afterwards, Status says %+v", s)
		}
		if n := f.count(); n < 3 {
			t.Errorf("%d calls of the issuer", n)
		}
	})
}

// A record is whole and has a leaf that only crypto/x509 refuses.
func TestLeafThatCannotBeParsedIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSigner(t)
		f.addIntermediate(t)
		mem := storedBy(t, f, "a.example.com", "b.example.com")
		changeStored(t, mem, "a.example.com", func(body []byte) []byte {
			block, text := pemBlock(t, body, "CERTIFICATE")
			// The last algorithm identifier, which is outside of what is signed.
			oid := []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02}
			block.Bytes[bytes.LastIndex(block.Bytes, oid)+len(oid)-1]++
			return bytes.Replace(body, text, pem.EncodeToMemory(block), 1)
		})
		m := offline(t, f, func(c *Config) { c.Storage = mem })
		manage(t, m, "b.example.com") // now the chain behind the leaf is known
		manage(t, m, "a.example.com")
		f.set(func() { f.err = nil })
		replace := make(chan struct{})
		f.set(func() { f.hook = func(context.Context) error { <-replace; return nil } })
		for range 3 {
			if leafOf(m, "a.example.com") != nil {
				t.Error("what cannot be parsed is served")
			}
		}
		close(replace)
		synctest.Wait()
		mustLeaf(t, m, "a.example.com")
		if s := statusFor(t, m, "a.example.com"); s.Degraded != "" || s.State != StateValid {
			t.Errorf("Status says %+v", s)
		}
		if n := f.count(); n != 3 {
			t.Errorf("%d certificates were issued; want 3", n)
		}
	})
}

// mixedKey is the text of a key whose public half is that of a PKCS #8 key and
// whose private half is another's.
func mixedKey(t *testing.T, der []byte) string {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	was, err := key.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	is, err := other.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: bytes.Replace(der, was, is, 1)}))
}
