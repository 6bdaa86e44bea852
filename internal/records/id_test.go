package records_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/records"
)

func longName() string { return strings.Repeat(strings.Repeat("a", 49)+".", 5) + "xy" } // 252 bytes

func TestIDIsOfTheSetOfNamesAndTheKeyType(t *testing.T) {
	tests := []struct {
		names []string
		key   certpem.KeyType
		want  string // a regular expression
	}{
		{[]string{"a.example"}, certpem.P256, `a\.example\+p256`},
		{[]string{"a.example"}, "", `a\.example\+p256`},
		{[]string{"a.example", "a.example"}, certpem.RSA4096, `a\.example\+rsa4096`},
		{[]string{"*.a.example"}, certpem.P384, `\*\.a\.example\+p384`},
		{[]string{"2001:db8::1"}, certpem.P256, `2001@db8@@1\+p256`},
		{[]string{"192.0.2.1"}, certpem.P256, `192\.0\.2\.1\+p256`},
		{[]string{longName()}, certpem.P256, `\+[0-9a-f]{32}\+p256`},
		{[]string{"a.example", "b.example"}, certpem.P256, `\+[0-9a-f]{32}\+p256`},
	}
	for _, tt := range tests {
		if got := records.ID(tt.names, tt.key); !regexp.MustCompile("^" + tt.want + "$").MatchString(got) {
			t.Errorf("ID(%q, %q) = %q, want %s", tt.names, tt.key, got, tt.want)
		}
	}
	one := records.ID([]string{"a.example", "b.example", "c.example"}, certpem.P256)
	for _, names := range [][]string{{"c.example", "a.example", "b.example"}, {"a.example", "b.example", "a.example", "c.example"}} {
		if got := records.ID(names, certpem.P256); got != one {
			t.Errorf("ID(%q) = %q, want that of the set, %q", names, got, one)
		}
	}
	if records.ID([]string{"a.example", "b.example"}, certpem.P256) == one {
		t.Error("two sets have one ID")
	}
	names := []string{"b.example", "a.example"}
	records.ID(names, certpem.P256)
	if names[0] != "b.example" {
		t.Error("ID changed its argument")
	}
}

func TestKeysAreFlatAndPlain(t *testing.T) {
	s := newFakeStorage()
	r := records.New(s, records.Options{})
	ctx := t.Context()
	ca := newFakeCA(t)
	c := r.NewChanges("host.example/7:1")
	var ids []string
	for _, names := range [][]string{{longName()}, {"2001:db8::1"}, {"a.example", "*.a.example"}, {"*.b.example"}, {"a.example"}} {
		b := ca.bundle(r, names, nil)
		store(t, r, b)
		if err := r.KeepPrevious(ctx, records.Stored{Bundle: b}); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, b.ID())
		c.Note(b.ID())
	}
	for _, issuer := range []string{"ca.example-directory", "https://odd.example/ü?x=" + strings.Repeat("y", 300), "..", ""} {
		check(t, r.StoreAccount(ctx, issuer, &records.Account{}))
		for _, id := range ids {
			check(t, r.StoreOrder(ctx, id, &records.Order{Issuer: issuer}))
			check(t, r.StoreHold(ctx, &records.Hold{Account: issuer, Subject: id}))
		}
		for _, name := range []string{"", longName(), "2001:db8::1", "a.example"} {
			check(t, r.StoreHold(ctx, &records.Hold{Account: issuer, Subject: name}))
			h, err := r.LoadHold(ctx, issuer, name)
			if err != nil || h.Subject != name {
				t.Errorf("LoadHold(%.20q, %.20q) = %+v, %v", issuer, name, h, err)
			}
		}
	}
	for _, id := range ids {
		check(t, r.StoreStaple(ctx, id, &records.Staple{}))
		check(t, r.StoreRenewalInfo(ctx, id, &records.RenewalInfo{}))
	}
	check(t, r.StoreCleaned(ctx, records.Cleaned{}))
	check(t, r.Probe(ctx))
	check(t, c.Flush(ctx))
	plain := regexp.MustCompile(`^v1/([a-z-]+/)?[A-Za-z0-9.+*@_-]{1,255}$`)
	if want := 5*2 + 4 + 4*5*2 + 4*4 + 5*2 + 3; len(s.values) != want {
		t.Errorf("%d keys, want %d: two records share one", len(s.values), want)
	}
	for key := range s.values {
		if !plain.MatchString(key) || strings.HasSuffix(key, "/..") || strings.HasSuffix(key, "/.") {
			t.Errorf("key %q", key)
		}
		for other := range s.values {
			if strings.HasPrefix(other, key+"/") {
				t.Errorf("key %q is a prefix of %q", key, other)
			}
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
