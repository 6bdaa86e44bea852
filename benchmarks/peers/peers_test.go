package peers

import (
	"context"
	"testing"

	"github.com/certwright/certwright/benchmarks/corpus"
	"github.com/certwright/certwright/benchmarks/harness"
)

// TestCorpus has each library serve every certificate of a corpus, from a store
// in its own layout and from the corpus's file. No issuer would give one.
func TestCorpus(t *testing.T) {
	c, err := corpus.OpenIn(t.TempDir()+"/corpus", 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	hello, release, err := harness.Hello()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	for _, column := range []string{harness.Certwright, harness.CertMagic, harness.Autocert, harness.Limit, harness.LimitParsed} {
		for name, open := range map[string]func(string, *corpus.Corpus) (Peer, error){"folders": InFolders, "file": InFile} {
			t.Run(column+" "+name, func(t *testing.T) {
				p, err := open(column, c)
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				if err := p.Load(t.Context(), c.Names()); err != nil {
					t.Fatal(err)
				}
				for i, name := range c.Names() {
					pair, err := c.Pair(i)
					if err != nil {
						t.Fatal(err)
					}
					asked := *hello
					asked.ServerName = name
					cert, err := p.GetCertificate(&asked)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					if string(cert.Certificate[0]) != string(pair.Leaf) || len(cert.Certificate) != 2 {
						t.Errorf("%s: served another certificate", name)
					}
				}
			})
		}
	}
}

// TestWildcards has certwright and CertMagic serve the wildcards.
func TestWildcards(t *testing.T) {
	c, err := corpus.OpenIn(t.TempDir()+"/corpus", 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	hello, release, err := harness.Hello()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	for _, column := range []string{harness.Certwright, harness.CertMagic} {
		p, err := InFile(column, c)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if err := p.Load(t.Context(), c.Wildcards()); err != nil {
			t.Fatal(err)
		}
		for _, name := range c.Wildcards() {
			asked := *hello
			asked.ServerName = "www" + name[1:]
			if _, err := p.GetCertificate(&asked); err != nil {
				t.Errorf("%s: %s: %v", column, asked.ServerName, err)
			}
		}
	}
}

// TestMissing looks at it that a name without a stored certificate fails: what
// is measured is never the making of one.
func TestMissing(t *testing.T) {
	c, err := corpus.OpenIn(t.TempDir()+"/corpus", 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for _, column := range []string{harness.Certwright, harness.Limit} {
		p, err := InFile(column, c)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if err := p.Load(context.Background(), []string{"shop000020.hosting.example"}); err == nil {
			t.Errorf("%s loaded what is not there", column)
		}
	}
}

// TestShared has certwright serve names that share certificates.
func TestShared(t *testing.T) {
	s, err := corpus.NewShared(250, 100, 2)
	if err != nil {
		t.Fatal(err)
	}
	storage, err := s.Storage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewCertwright(storage)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Manage(t.Context(), s.Specs()...); err != nil {
		t.Fatal(err)
	}
	var extra []string
	for _, pair := range s.Extra {
		extra = append(extra, pair.Name)
	}
	if err := p.Load(t.Context(), extra); err != nil {
		t.Fatal(err)
	}
	hello, release, err := harness.Hello()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	for _, names := range append(s.Names, extra) {
		for _, name := range names {
			asked := *hello
			asked.ServerName = name
			if _, err := p.GetCertificate(&asked); err != nil {
				t.Error(err)
			}
		}
	}
}
