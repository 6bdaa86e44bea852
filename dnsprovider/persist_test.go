package dnsprovider

import (
	"strings"
	"testing"
	"time"
)

func TestWhichPersistRecordsServe(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	const plain, wild = "ca.example; accounturi=https://ca.example/acct/1", "ca.example; accounturi=https://ca.example/acct/1; policy=wildcard"
	for _, tt := range []struct{ want, have, differs string }{
		{plain, plain, ""},
		{plain, wild, ""},
		{wild, wild, ""},
		{plain, "CA.Example.;AccountURI=https://ca.example/acct/1", ""},
		{wild, " ca.example ;policy=WILDCARD;  accounturi = https://ca.example/acct/1 ", ""},
		{plain, plain + "; new=thing", ""},
		{plain, plain + "; policy=else", ""},
		{plain, plain + "; persistUntil=1800000001", ""},
		{plain + "; persistUntil=1900000000", plain, ""},
		{plain, plain + "; PERSISTUNTIL=1800000000", "ended at 2027-01-15T08:00:00Z"},
		{wild, plain, "policy=wildcard"},
		{wild, plain + "; policy=else", "policy=wildcard"},
		{plain, "ca.example; accounturi=https://ca.example/acct/11", `account "https://ca.example/acct/11"`},
		{plain, "ca.example; accounturi=https://CA.example/acct/1", `account "https://CA.example/acct/1"`},
		{plain, "ca.example", "no accounturi"},
		{plain, "ca.example;", "no accounturi"},
		{plain, "other.example; accounturi=https://ca.example/acct/1", `issuer "other.example"`},
		{plain, "", "damaged"},
		{plain, "; accounturi=https://ca.example/acct/1", "damaged"},
		{plain, "accounturi=https://ca.example/acct/1", "damaged"},
		{plain, "ca.example; accounturi", "damaged"},
		{plain, plain + ";", "damaged"},
		{plain, plain + "; persistUntil=soon", "damaged"},
		{plain, plain + "; persistUntil=-1", "damaged"},
		{plain, plain + "; AccountURI=https://ca.example/acct/2", "damaged"},
		{plain, `"` + plain + `"`, "damaged"},
	} {
		want, err := parsePersist(tt.want)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := want.differs(tt.have, now); tt.differs == "" && got != "" || !strings.Contains(got, tt.differs) {
			t.Errorf("want %q, have %q: %q, want %q", tt.want, tt.have, got, tt.differs)
		}
	}
}

func TestTheNearestPersistRecordIsNamed(t *testing.T) {
	want, err := parsePersist("ca.example; accounturi=https://ca.example/acct/1; policy=wildcard")
	if err != nil {
		t.Fatal(err)
	}
	values := []string{
		"v=spf1 -all",
		"other.example; accounturi=x",
		"ca.example; accounturi=x",
		"ca.example; accounturi=https://ca.example/acct/1",
		"ca.example; accounturi=https://ca.example/acct/1; policy=wildcard; persistUntil=1",
	}
	for i, differs := range []string{"damaged", "issuer", "account", "policy", "persistUntil"} {
		if got := want.nearest(values[:i+1], time.Now()); !strings.Contains(got, differs) {
			t.Errorf("%d: %q lacks %q", i, got, differs)
		}
	}
	if got := want.nearest(nil, time.Now()); got != "there is no TXT record" {
		t.Error(got)
	}
}

func FuzzPersist(f *testing.F) {
	f.Add("ca.example; accounturi=https://ca.example/acct/1; policy=wildcard; persistUntil=1800000000")
	f.Add("ca.example;;=;a=b;a=c")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := parsePersist(s)
		if err != nil {
			return
		}
		if text, _ := v.differs(s, time.Unix(0, 0)); text != "" && v.account != "" {
			t.Errorf("%q does not serve for itself: %s", s, text)
		}
	})
}
