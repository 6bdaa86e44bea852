package hostname

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestNormalize(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 49)+".", 5) // 250 bytes
	tests := []struct{ in, want string }{
		{"example.com", "example.com"},
		{"EXAMPLE.Com", "example.com"},
		{"example.com.", "example.com"},
		{"localhost", "localhost"},
		{"_acme-challenge.example.com", "_acme-challenge.example.com"},
		{"a_b.example.com", "a_b.example.com"},
		{"r3---sn-x.example.com", "r3---sn-x.example.com"},
		{"*.example.com", "*.example.com"},
		{"*.Example.COM.", "*.example.com"},
		{"*.com", "*.com"},
		{"bücher.example", "xn--bcher-kva.example"},
		{"BÜCHER.example", "xn--bcher-kva.example"},
		{"bu\u0308cher.example", "xn--bcher-kva.example"},
		{"XN--BCHER-KVA.example", "xn--bcher-kva.example"},
		{"*.bücher.example", "*.xn--bcher-kva.example"},
		{"_x.bücher.example", "_x.xn--bcher-kva.example"},
		{"faß.example", "xn--fa-hia.example"},
		{"例え。テスト", "xn--r8jz45g.xn--zckzah"},
		{"例え.テスト。", "xn--r8jz45g.xn--zckzah"},
		{"192.0.2.1", "192.0.2.1"},
		{"[192.0.2.1]", "192.0.2.1"},
		{"2001:DB8:0:0::1", "2001:db8::1"},
		{"[2001:db8::1]", "2001:db8::1"},
		{"::ffff:192.0.2.1", "192.0.2.1"},
		{long + "com", long + "com"},
		{strings.Repeat("a", 63) + ".com", strings.Repeat("a", 63) + ".com"},
	}
	for _, tt := range tests {
		got, err := Normalize(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("Normalize(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
		again, err := Normalize(got)
		if err != nil || again != got {
			t.Errorf("Normalize(%q) = %q, %v; want it unchanged", got, again, err)
		}
	}
}

func TestNormalizeRefusesWhatIsMoreThanAName(t *testing.T) {
	checkRefused(t, []refusal{
		{"", "empty"},
		{".", "empty"},
		{"..", "two dots"},
		{"example.com..", "two dots"},
		{"a..example.com", "empty part"},
		{".example.com", "empty part"},
		{"*..example.com", "empty part"},
		{"https://example.com/", "URL"},
		{"https://example.com", "URL"},
		{"example.com/x", "path"},
		{"example.com?x", "path"},
		{`example.com\x`, "path"},
		{"admin@example.com", "user part"},
		{" example.com", "space"},
		{"example.com ", "space"},
		{"a b.example.com", "space"},
		{"example.com\n", "space"},
		{"example.com:443", `write "example.com"`},
		{"192.0.2.1:443", "port"},
		{"[::1]:443", "port"},
		{"example.com:http", "colon"},
		{":443", "colon"},
		{"[::1", "brackets"},
		{"[example.com]", "IP address"},
		{"1:2:3", "IP address"},
		{"fe80::1%eth0", "zone"},
		{"[fe80::1%25eth0]", "zone"},
	})
}

func TestNormalizeRefusesBadNames(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 49)+".", 5)
	checkRefused(t, []refusal{
		{"*", "*.example.com"},
		{"*.", "*.example.com"},
		{"*.*.example.com", "wildcard"},
		{"a.*.example.com", "wildcard"},
		{"*a.example.com", "wildcard"},
		{"example.*", "wildcard"},
		{"＊.example.com", "wildcard"},
		{"*.192.0.2.1", "number"},
		{"256.1.1.1", "number"},
		{"01.2.3.4", "number"},
		{"1.2.3", "number"},
		{"１２７.0.0.1", "number"},
		{"-a.example.com", "hyphen"},
		{"a-.example.com", "hyphen"},
		{"a!.example.com", "character"},
		{"a\x00.example.com", "character"},
		{"a\x7f.example.com", "character"},
		{"a,b.example.com", "character"},
		{"ａ／ｂ.example.com", "character"},
		{strings.Repeat("a", 64) + ".com", "63"},
		{long + "comm", "253"},
		{"*." + long + "co", "253"},
		{strings.Repeat("a", 5000), "253"},
		{"xn--a.example.com", "internationalised"},
		{"xn--.example.com", "empty part"},
		{"\xff.example.com", "UTF-8"},
		{"a\u200b\u0300\u200c.example", "internationalised"},
	})
}

// refusal is a name that must be refused, and a part of what the error says.
type refusal struct{ in, says string }

func checkRefused(t *testing.T, tests []refusal) {
	t.Helper()
	for _, tt := range tests {
		got, err := Normalize(tt.in)
		if err == nil {
			t.Errorf("Normalize(%q) = %q; want an error", tt.in, got)
			continue
		}
		if !strings.Contains(err.Error(), tt.says) {
			t.Errorf("Normalize(%q): %v; want it to say %q", tt.in, err, tt.says)
		}
		if len(err.Error()) > 500 {
			t.Errorf("Normalize(%.20q): the error is %d bytes long", tt.in, len(err.Error()))
		}
	}
}

func TestH4_FromSNIStripsOneTrailingDot(t *testing.T) {
	if got, ok := FromSNI("example.com."); !ok || got != "example.com" {
		t.Errorf(`FromSNI("example.com.") = %q, %v`, got, ok)
	}
	if got, ok := FromSNI("example.com.."); ok {
		t.Errorf(`FromSNI("example.com..") = %q; want it refused`, got)
	}
}

func TestFromSNI(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 49)+".", 5)
	good := []struct{ in, want string }{
		{"example.com", "example.com"},
		{"Example.COM", "example.com"},
		{"localhost", "localhost"},
		{"_x.example.com", "_x.example.com"},
		{"foo-.example.com", "foo-.example.com"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"192.0.2.1", "192.0.2.1"},
		{"192.0.2.1.", "192.0.2.1"},
		{"[192.0.2.1]", "192.0.2.1"},
		{"2001:DB8::0:1", "2001:db8::1"},
		{"[2001:db8::1]", "2001:db8::1"},
		{"::ffff:192.0.2.1", "192.0.2.1"},
		{long + "com", long + "com"},
		{long + "com.", long + "com"},
	}
	for _, tt := range good {
		if got, ok := FromSNI(tt.in); !ok || got != tt.want {
			t.Errorf("FromSNI(%q) = %q, %v; want %q", tt.in, got, ok, tt.want)
		}
	}
	bad := []string{
		"", ".", "..", ".example.com", "a..b", "*.example.com", "*", "a b", "a\x00.com", "\x00", "a\n.com", "a\x7f.com",
		"bücher.example", "\xff\xfe", "example.com:443", "[::1]:443", "[::1", "fe80::1%eth0", "1.2.3", "256.1.1.1", "123",
		"../../etc/passwd", "a/b", "a@b", strings.Repeat("a", 64) + ".com", long + "comm", strings.Repeat("a.", 1000),
	}
	for _, in := range bad {
		if got, ok := FromSNI(in); ok {
			t.Errorf("FromSNI(%q) = %q; want it refused", in, got)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	for _, name := range []string{"www.example.com", "www.example.com.", "192.0.2.1", "*.bad", "", strings.Repeat("a", 400)} {
		if n := testing.AllocsPerRun(100, func() { FromSNI(name) }); n != 0 {
			t.Errorf("FromSNI(%q) allocates %v times", name, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() { Parent("www.example.com"); IsIP("www.example.com") }); n != 0 {
		t.Errorf("Parent and IsIP allocate %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { Covers("*.example.com", "www.example.com") }); n != 0 {
		t.Errorf("Covers allocates %v times", n)
	}
}

func TestKinds(t *testing.T) {
	for name, want := range map[string]bool{
		"192.0.2.1": true, "2001:db8::1": true, "::": true, "example.com": false, "": false, "a1": false, "1.2.3": false, "fe80::1%eth0": false,
	} {
		if got := IsIP(name); got != want {
			t.Errorf("IsIP(%q) = %v", name, got)
		}
	}
	for name, want := range map[string]bool{"*.example.com": true, "example.com": false, "*": false, "": false} {
		if got := IsWildcard(name); got != want {
			t.Errorf("IsWildcard(%q) = %v", name, got)
		}
	}
	for name, want := range map[string]string{"a.b.c": "b.c", "c": "", "": "", "*.b.c": "b.c"} {
		if got := Parent(name); got != want {
			t.Errorf("Parent(%q) = %q; want %q", name, got, want)
		}
	}
}

func TestCovers(t *testing.T) {
	tests := []struct {
		pattern, name string
		want          bool
	}{
		{"example.com", "example.com", true},
		{"*.example.com", "*.example.com", true},
		{"*.example.com", "a.example.com", true},
		{"*.example.com", "a.b.example.com", false},
		{"*.example.com", "example.com", false},
		{"*.example.com", ".example.com", false},
		{"*.com", "*.example.com", false},
		{"*.b.example.com", "*.example.com", false},
		{"a.example.com", "*.example.com", false},
		{"192.0.2.1", "192.0.2.1", true},
		{"*.0.2.1", "192.0.2.1", false},
		{"", "", true},
		{"*.", "a.", true},
	}
	for _, tt := range tests {
		if got := Covers(tt.pattern, tt.name); got != tt.want {
			t.Errorf("Covers(%q, %q) = %v", tt.pattern, tt.name, got)
		}
	}
}

func TestIsPublic(t *testing.T) {
	public := []string{
		"example.com", "*.example.com", "a.b.example.org", "xn--bcher-kva.example.net", "localhost.example.com", "internal.example.com",
		"203.0.113.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "test.arpa",
	}
	for _, name := range public {
		if !IsPublic(name) {
			t.Errorf("IsPublic(%q) = false", name)
		}
	}
	private := []string{
		"", "localhost", "a.localhost", "printer.local", "db.internal", "router.home.arpa", "home.arpa", "a.test", "a.invalid", "a.onion",
		"www.example", "example", "com", "*.com", "*.local", "a.alt", "intranet",
		"10.0.0.79", "172.16.0.1", "192.168.1.1", "127.0.0.1", "169.254.1.1", "100.64.0.1", "100.127.255.255", "0.0.0.0", "0.1.2.3",
		"224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "198.19.0.1", "::", "::1", "fe80::1", "fd00::1", "fc00::1", "ff02::1", "100::1",
	}
	for _, name := range private {
		if IsPublic(name) {
			t.Errorf("IsPublic(%q) = true", name)
		}
	}
}

func TestReverseName(t *testing.T) {
	tests := []struct{ ip, want string }{
		{"127.0.0.1", "1.0.0.127.in-addr.arpa"},
		{"192.0.2.10", "10.2.0.192.in-addr.arpa"},
		{"::ffff:192.0.2.10", "10.2.0.192.in-addr.arpa"},
		{"2001:db8::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"},
		{"fe80::1%eth0", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.e.f.ip6.arpa"},
	}
	for _, tt := range tests {
		addr := netip.MustParseAddr(tt.ip)
		got := reverseName(addr)
		if got != tt.want {
			t.Errorf("reverseName(%s) = %q; want %q", tt.ip, got, tt.want)
		}
		back, ok := FromReverseName(strings.ToUpper(got) + ".")
		if want := addr.Unmap().WithZone(""); !ok || back != want {
			t.Errorf("FromReverseName(%q) = %v, %v; want %v", got, back, ok, want)
		}
	}
	bad := []string{
		"", ".", "in-addr.arpa", ".in-addr.arpa", "0.0.127.in-addr.arpa", "1.1.0.0.127.in-addr.arpa", "256.0.0.1.in-addr.arpa",
		"01.0.0.127.in-addr.arpa", "a.0.0.127.in-addr.arpa", "ip6.arpa", "1.0.ip6.arpa", "example.com", "::1.in-addr.arpa",
		strings.Repeat("0.", 31) + "g.ip6.arpa", strings.Repeat("0-", 31) + "0.ip6.arpa", strings.Repeat("+.", 31) + "0.ip6.arpa",
	}
	for _, s := range bad {
		if got, ok := FromReverseName(s); ok {
			t.Errorf("FromReverseName(%q) = %v; want it refused", s, got)
		}
	}
}

func FuzzNormalize(f *testing.F) {
	for _, s := range []string{"example.com", "*.Example.com.", "bücher.example", "xn--a", "[::1]", "192.0.2.1", "１２７.0.0.1", "＊.a", "a。b", "*.", "::ffff:1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := Normalize(s)
		if err != nil {
			return
		}
		if len(name) > maxName || name == "" || !isASCII(name) || name != strings.ToLower(name) {
			t.Fatalf("Normalize(%q) = %q", s, name)
		}
		if again, err := Normalize(name); err != nil || again != name {
			t.Fatalf("Normalize(%q) = %q, %v; want it unchanged", name, again, err)
		}
		if IsWildcard(name) {
			return
		}
		if got, ok := FromSNI(name); !ok || got != name {
			t.Fatalf("FromSNI(%q) = %q, %v; want it unchanged", name, got, ok)
		}
	})
}

func FuzzFromSNI(f *testing.F) {
	for _, s := range []string{"example.com", "Example.com.", "[::1]", "192.0.2.1", "a..b", "::ffff:1.2.3.4", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, ok := FromSNI(s)
		if !ok {
			return
		}
		if again, ok := FromSNI(name); !ok || again != name {
			t.Fatalf("FromSNI(%q) = %q, %v; want it unchanged", name, again, ok)
		}
		for i := range len(name) {
			if c := name[i]; !isLDHU(c) && c != '.' && c != ':' {
				t.Fatalf("FromSNI(%q) = %q", s, name)
			}
		}
	})
}

func FuzzReverseName(f *testing.F) {
	f.Add("1.0.0.127.in-addr.arpa")
	f.Add(reverseName(netip.MustParseAddr("2001:db8::1")))
	f.Fuzz(func(t *testing.T, s string) {
		addr, ok := FromReverseName(s)
		if !ok {
			return
		}
		if got := reverseName(addr); got != strings.ToLower(strings.TrimSuffix(s, ".")) {
			t.Fatalf("reverseName(%v) = %q; it came from %q", addr, got, s)
		}
	})
}

// AppendSNI and FromSNI agree.
func FuzzAppendSNI(f *testing.F) {
	for _, s := range []string{"example.com", "Example.COM.", "192.0.2.1", "[2001:DB8::1]", "::ffff:192.0.2.1", "*.example.com", "a b.example", "a..b", strings.Repeat("a", 64) + ".b", "1.2.3", "a.7"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, ok := FromSNI(s)
		got, found := AppendSNI([]byte("x"), s)
		if found != ok || ok && string(got) != "x"+want {
			t.Fatalf("AppendSNI(%q) = %q, %v; FromSNI = %q, %v", s, got, found, want, ok)
		}
	})
}

// reverseName is what [FromReverseName] reads.
func reverseName(ip netip.Addr) (name string) {
	if ip = ip.Unmap(); ip.Is4() {
		for _, b := range ip.AsSlice() {
			name = fmt.Sprintf("%d.%s", b, name)
		}
		return name + "in-addr.arpa"
	}
	for _, b := range ip.AsSlice() {
		name = fmt.Sprintf("%x.%x.%s", b&15, b>>4, name)
	}
	return name + "ip6.arpa"
}
