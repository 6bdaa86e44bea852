package corpus

import (
	"crypto/x509"
	"os"
	"testing"
	"time"
)

func open(t *testing.T, dir string) *Corpus {
	t.Helper()
	c, err := OpenIn(dir, 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestNames(t *testing.T) {
	c := open(t, t.TempDir()+"/corpus")
	seen := map[string]bool{}
	for i, name := range append(c.Names(), c.Wildcards()...) {
		if got, ok := c.Index(name); !ok || got != i {
			t.Errorf("Index(%q) = %d, %v, want %d", name, got, ok, i)
		}
		if seen[name] {
			t.Errorf("%q is there twice", name)
		}
		seen[name] = true
	}
	for _, name := range []string{"", "shop", "shop000020.hosting.example", "shop000001.hosting", "shop1.hosting.example", "*.zone000020.hosting.example", "shop-00001.hosting.example"} {
		if i, ok := c.Index(name); ok {
			t.Errorf("Index(%q) = %d", name, i)
		}
	}
}

// TestShape looks at it that leaves weigh and last what a public CA's do, and
// that none has anything to ask of the network.
func TestShape(t *testing.T) {
	c := open(t, t.TempDir()+"/corpus")
	keys := map[string]bool{}
	for i := range c.N + c.Zones {
		p, err := c.Pair(i)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(p.Leaf)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(p.Leaf); n < 850 || n > 950 {
			t.Errorf("leaf of %d bytes", n)
		}
		if leaf.DNSNames[0] != p.Name || len(leaf.OCSPServer) > 0 || len(leaf.CRLDistributionPoints) != 1 || len(leaf.IssuingCertificateURL) != 1 {
			t.Errorf("%s: odd leaf", p.Name)
		}
		if left := time.Until(leaf.NotAfter); left < 79*24*time.Hour || left < leaf.NotAfter.Sub(leaf.NotBefore)/3+2*fresh {
			t.Errorf("%s: %v left", p.Name, left)
		}
		keys[string(p.Key)] = true
	}
	if len(keys) != c.N+c.Zones {
		t.Errorf("%d keys for %d certificates", len(keys), c.N+c.Zones)
	}
}

// TestKept looks at it that a corpus is made once, and again when it is old.
func TestKept(t *testing.T) {
	dir := t.TempDir() + "/corpus"
	first, err := open(t, dir).Pair(3)
	if err != nil {
		t.Fatal(err)
	}
	same, err := open(t, dir).Pair(3)
	if err != nil {
		t.Fatal(err)
	}
	if string(same.Leaf) != string(first.Leaf) {
		t.Error("it was made twice")
	}
	old := time.Now().Add(-fresh - time.Hour)
	if err := os.Chtimes(dir+"/"+caFile, old, old); err != nil {
		t.Fatal(err)
	}
	other, err := open(t, dir).Pair(3)
	if err != nil {
		t.Fatal(err)
	}
	if string(other.Leaf) == string(first.Leaf) {
		t.Error("an old one was used")
	}
}
