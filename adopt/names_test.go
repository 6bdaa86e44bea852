package adopt

import (
	"slices"
	"strings"
	"testing"
)

func TestSafe(t *testing.T) {
	tests := []struct{ in, want string }{
		{"example.com", "example.com"},
		{"WWW.Example.COM", "www.example.com"},
		{" example.com\t", "example.com"},
		{"*.example.com", "wildcard_.example.com"},
		{"a+b.example.com", "a_plus_b.example.com"},
		{"me+tag@Example.com", "me_plus_tag@example.com"},
		{"192.0.2.7", "192.0.2.7"},
		{"2001:db8::1", "2001-db8--1"},
		{"::1", "--1"},
		{"xn--mnchen-3ya.de", "xn--mnchen-3ya.de"},
		{"münchen.de", "mnchen.de"},
		{"a b", "a_b"},
		{"../../etc/passwd", "etcpasswd"},
		{"a,b", "ab"},
		{"_acme.example.com", "_acme.example.com"},
		{"", ""},
	}
	for _, tt := range tests {
		if got := safe(tt.in); got != tt.want {
			t.Errorf("safe(%q) = %q; want %q", tt.in, got, tt.want)
		}
		if got := safe(safe(tt.in)); got != safe(tt.in) {
			t.Errorf("safe of safe(%q) = %q", tt.in, got)
		}
	}
}

func TestCASegment(t *testing.T) {
	tests := []struct{ in, want string }{
		{letsEncrypt, "acme-v02.api.letsencrypt.org-directory"},
		{"https://acme-staging-v02.api.letsencrypt.org/directory", "acme-staging-v02.api.letsencrypt.org-directory"},
		{"https://acme.zerossl.com/v2/DV90", "acme.zerossl.com-v2-dv90"},
		{"https://dv.acme-v02.api.pki.goog/directory", "dv.acme-v02.api.pki.goog-directory"},
		{"https://127.0.0.1:14000/dir", "127.0.0.1-14000-dir"},
		{"https://ca.example/", "ca.example"},
	}
	for _, tt := range tests {
		if got := caSegment(tt.in); got != tt.want {
			t.Errorf("caSegment(%q) = %q; want %q", tt.in, got, tt.want)
		}
	}
}

func TestSites(t *testing.T) {
	tests := []struct {
		names []string
		want  []string
	}{
		{[]string{"www.example.com"}, []string{"www.example.com", "wildcard_.example.com"}},
		{[]string{"*.example.com"}, []string{"wildcard_.example.com"}},
		{[]string{"2001:db8::1"}, []string{"2001-db8--1"}},
		{[]string{"localhost"}, []string{"localhost"}},
		{[]string{"b.example", "a.example"}, []string{"a.exampleb.example"}},
	}
	for _, tt := range tests {
		if got := sites(tt.names); !slices.Equal(got, tt.want) {
			t.Errorf("sites(%q) = %q; want %q", tt.names, got, tt.want)
		}
	}
}

func TestCertbotRenewalParams(t *testing.T) {
	conf := "# c\r\nserver = before\n[renewalparams]\nserver = https://ca.example/dir\naccount= \"abc\" \n#server = no\nodd\n= x\n" +
		"[[webroot_map]]\nserver = map\n[other]\nserver = other\n"
	got := renewalParams([]byte(conf))
	if got["server"] != "https://ca.example/dir" || got["account"] != "abc" {
		t.Errorf("%q", got)
	}
}

func TestVersionOfAnArchivedChain(t *testing.T) {
	for file, want := range map[string]int{
		"archive/a/fullchain1.pem": 1, "archive/a/fullchain12.pem": 12, "archive/a/fullchain.pem": 0,
		"archive/a/chain3.pem": 0, "archive/a/fullchain-1.pem": 0, "": 0,
	} {
		if got := version(file); max(got, 0) != want {
			t.Errorf("version(%q) = %d; want %d", file, got, want)
		}
	}
}

func FuzzSafe(f *testing.F) {
	for _, s := range []string{"*.example.com", "a+b", "2001:db8::1", "....", ".. ..", "Ünï", "\xff", "a.\x00.b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := safe(s)
		if strings.ContainsAny(got, "/\\:* +,") || strings.ToLower(got) != got {
			t.Errorf("safe(%q) = %q", s, got)
		}
	})
}
