package dnsprovider

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/libdns/libdns"
)

// Whatever the name and the zone: what is written at the relative name is at the name
// (D6).
func TestNameToRelativeAndBack(t *testing.T) {
	labels := []string{"example", "com", "x", "_acme-challenge", "com", "example", "xn--bcher-kva"}
	rnd := rand.New(rand.NewPCG(1, 2))
	name := func(most int) string {
		var parts []string
		for range 1 + rnd.IntN(most) {
			parts = append(parts, labels[rnd.IntN(len(labels))])
		}
		return strings.Join(parts, ".")
	}
	in := 0
	for range 20_000 {
		z, n := zone(plain(name(3))), name(3)
		if rnd.IntN(2) == 0 {
			n += "." + string(z)
		}
		if rnd.IntN(2) == 0 {
			n += "."
		}
		p, ok := at(z, plain(n))
		if suffix := "." + string(z); ok != strings.HasSuffix("."+string(plain(n)), suffix) {
			t.Fatalf("%q in zone %q: %v", n, z, ok)
		}
		if !ok {
			continue
		}
		in++
		if p.rel == "" || strings.HasSuffix(string(p.rel), ".") || (p.rel == apex) != (string(p.name) == string(z)) {
			t.Fatalf("%q in zone %q is %q", n, z, p.rel)
		}
		abs := libdns.AbsoluteName(string(p.rel), z.dotted())
		if plain(abs) != plain(n) || !strings.HasSuffix(abs, ".") {
			t.Fatalf("%q in zone %q is %q, which is %q", n, z, p.rel, abs)
		}
		for _, form := range []string{abs, strings.ToUpper(abs)} {
			if back := z.absolute(form); back != p.name {
				t.Fatalf("%q in zone %q is %q, want %q", form, z, back, p.name)
			}
		}
	}
	if in < 1000 {
		t.Errorf("only %d names were in their zone", in)
	}
}

func TestPlacesOfNames(t *testing.T) {
	for _, tt := range []struct{ zone, name, want string }{
		{"example.com", "example.com", "@"},
		{"example.com", "_acme-challenge.example.com", "_acme-challenge"},
		{"example.com", "_acme-challenge.a.b.example.com", "_acme-challenge.a.b"},
		{"_acme-challenge.example.com", "_acme-challenge.example.com", "@"},
		{"example.com", "_acme-challenge.badexample.com", ""},
		{"example.com", "com", ""},
		{"", "example.com", ""},
	} {
		if p, ok := at(zone(tt.zone), fqdn(tt.name)); string(p.rel) != tt.want || ok != (tt.want != "") {
			t.Errorf("%q in %q: %q, %v", tt.name, tt.zone, p.rel, ok)
		}
	}
	for _, tt := range []struct{ said, want string }{
		{"", "example.com"},
		{"@", "example.com"},
		{"x", "x.example.com"},
		{"X.Example.com.", "x.example.com"},
		{"x.example.com", "x.example.com"},
		{"other.org.", "other.org"},
	} {
		if got := zone("example.com").absolute(tt.said); string(got) != tt.want {
			t.Errorf("%q is %q, want %q", tt.said, got, tt.want)
		}
	}
}
