package records_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/records"
)

// odd returns a root with a negative serial number, which crypto/x509 refuses
// (F10).
func odd(t *testing.T, ca *fakeCA) []byte {
	der := slices.Clone(ca.root.Raw)
	at := bytes.Index(der, ca.root.SerialNumber.Bytes())
	if at < 0 {
		t.Fatal("the root has no serial number")
	}
	der[at] = 0x81
	if der[at-1] == 0 { // the zero that keeps it positive
		der[at-1] = 0x81
	}
	if _, err := x509.ParseCertificate(der); err == nil {
		t.Fatal("a negative serial number is taken")
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// chainTest is a chain as a CA may send it.
type chainTest struct {
	name, chain string
	want        []*x509.Certificate
	warnings    int
	end         time.Duration // of the chain
}

// chainTests returns chains for a.example and a key; the leaf is the first of
// each want.
func chainTests(t *testing.T, ca *fakeCA, key crypto.Signer) []chainTest {
	other := newFakeCA(t)
	names := []string{"a.example"}
	leaf := ca.leaf(key, names, nil)
	text := func(certs ...*x509.Certificate) string { return string(certpem.EncodeChain(certs)) }
	older := caTemplate("Older Root")
	older = sign(t, older, older, other.rootK.Public(), other.rootK)
	cross := caTemplate("Test Root")
	cross = sign(t, cross, older, ca.rootK.Public(), other.rootK)
	over := caTemplate("Test Root")
	over.NotAfter = began.Add(-day)
	over = sign(t, over, older, ca.rootK.Public(), other.rootK)
	short := caTemplate("Test Intermediate")
	short.NotAfter = began.Add(30 * day)
	short = sign(t, short, ca.root, ca.key.Public(), ca.rootK)
	dead := caTemplate("Test Intermediate")
	dead.NotAfter = began
	dead = sign(t, dead, ca.root, ca.key.Public(), ca.rootK)
	return []chainTest{
		{"as it should be", text(leaf, ca.inter), []*x509.Certificate{leaf, ca.inter}, 0, 90 * day},
		{"leaf alone", text(leaf), []*x509.Certificate{leaf}, 0, 90 * day},
		{"with the root", text(leaf, ca.inter, ca.root), []*x509.Certificate{leaf, ca.inter}, 0, 90 * day},
		{"any order, twice, CRLF", strings.ReplaceAll(text(ca.root, ca.inter, leaf, ca.inter), "\n", "\r\n"), []*x509.Certificate{leaf, ca.inter}, 0, 90 * day},
		{"no line feed between", strings.ReplaceAll(text(leaf, ca.inter), "----------", "-----"), []*x509.Certificate{leaf, ca.inter}, 0, 90 * day},
		{"cross-signed root", text(leaf, ca.inter, cross), []*x509.Certificate{leaf, ca.inter, cross}, 0, 90 * day},
		{"cross-signed root before the root", text(leaf, ca.inter, cross, ca.root), []*x509.Certificate{leaf, ca.inter, cross}, 0, 90 * day},
		{"cross-signed root that is over", text(leaf, ca.inter, over), []*x509.Certificate{leaf, ca.inter}, 1, 90 * day},
		{"intermediate of 30 days", text(leaf, short), []*x509.Certificate{leaf, short}, 0, 30 * day},
		{"intermediate that is over", text(leaf, dead), []*x509.Certificate{leaf, dead}, 0, 90 * day},
		{"intermediate that is over, and another", text(leaf, dead, ca.inter), []*x509.Certificate{leaf, ca.inter}, 0, 90 * day},
		{"stray one", text(leaf, ca.inter, other.inter), []*x509.Certificate{leaf, ca.inter}, 1, 90 * day},
		{"stray one between", text(leaf, other.inter, ca.inter), []*x509.Certificate{leaf, ca.inter}, 1, 90 * day},
		{"another leaf first", text(ca.leaf(ca.key, names, nil), leaf, ca.inter), []*x509.Certificate{leaf, ca.inter}, 1, 90 * day},
		{"root that cannot be parsed", text(leaf, ca.inter) + string(odd(t, ca)), []*x509.Certificate{leaf, ca.inter}, 1, 90 * day},
		{"intermediate cut short", text(leaf, ca.inter) + text(ca.root)[:300], []*x509.Certificate{leaf, ca.inter}, 1, 90 * day},
		{"a key in it", text(leaf) + keyText(t, key) + text(ca.inter), []*x509.Certificate{leaf, ca.inter}, 0, 90 * day},
		{"words in it", "Hello\n" + text(leaf) + "and\n" + text(ca.inter), []*x509.Certificate{leaf, ca.inter}, 0, 90 * day},
	}
}

func TestMakeReducesTheChain(t *testing.T) {
	ca := newFakeCA(t)
	r := records.New(newFakeStorage(), records.Options{})
	key := newKey(t, certpem.P256)
	names := []string{"a.example"}
	for _, tt := range chainTests(t, ca, key) {
		leaf := tt.want[0]
		b, warnings, err := r.Make(records.NewBundle{Names: names, Key: key, Chain: []byte(tt.chain)})
		if err != nil || len(warnings) != tt.warnings {
			t.Errorf("%s: warnings %q, want %d; %v", tt.name, warnings, tt.warnings, err)
			continue
		}
		cert, err := b.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		same := len(cert.Certificate) == len(tt.want)
		for i := range tt.want {
			same = same && bytes.Equal(cert.Certificate[i], tt.want[i].Raw)
		}
		if !same {
			t.Errorf("%s: a chain of %d, want %d, or others", tt.name, len(cert.Certificate), len(tt.want))
		}
		if b.End != began.Add(tt.end).Unix() || b.NotAfter != leaf.NotAfter.Unix() {
			t.Errorf("%s: it ends at %v", tt.name, time.Unix(b.End, 0))
		}
		end := time.Unix(b.End, 0)
		if b.Usable(began.Unix()-1) || !b.Usable(began.Unix()) || !b.Usable(end.Unix()-1) || b.Usable(end.Unix()) {
			t.Errorf("%s: it is usable at the wrong times", tt.name)
		}
	}
}

func keyText(t testing.TB, key crypto.Signer) string {
	text, err := certpem.EncodeKey(key)
	check(t, err)
	return string(text)
}

func TestMakeRefuses(t *testing.T) {
	ca := newFakeCA(t)
	r := records.New(newFakeStorage(), records.Options{})
	key := newKey(t, certpem.P256)
	names := []string{"a.example"}
	good := certpem.EncodeChain([]*x509.Certificate{ca.leaf(key, names, nil), ca.inter})
	large := fakeKey(t)
	tests := []struct {
		name string
		n    records.NewBundle
		want string
	}{
		{"no names", records.NewBundle{Key: key, Chain: good}, "no names"},
		{"no key", records.NewBundle{Names: names, Chain: good}, "no key"},
		{"no chain", records.NewBundle{Names: names, Key: key}, "no certificate for the key"},
		{"another key", records.NewBundle{Names: names, Key: ca.rootK, Chain: good}, "no certificate for the key"},
		{"another type", records.NewBundle{Names: names, Key: key, KeyType: certpem.P384, Chain: good}, "p384"},
		{"unknown type", records.NewBundle{Names: names, Key: large, Chain: certpem.EncodeChain([]*x509.Certificate{ca.leaf(large, names, nil)})}, "not supported"},
		{"another name", records.NewBundle{Names: []string{"b.example"}, Key: key, Chain: good}, "does not cover"},
		{"one name too many", records.NewBundle{Names: []string{"a.example", "b.example"}, Key: key, Chain: good}, "does not cover"},
		{"a leaf that is damaged", records.NewBundle{Names: names, Key: key, Chain: append(good[:200:200], certpem.EncodeChain([]*x509.Certificate{ca.inter})...)}, "no certificate for the key"},
		{"many", records.NewBundle{Names: names, Key: key, Chain: bytes.Repeat(good, 26)}, "more than 50"},
	}
	for _, tt := range tests {
		if _, _, err := r.Make(tt.n); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		} else if strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
