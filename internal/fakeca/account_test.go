package fakeca_test

import (
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/mholt/acmez/v3/acme"

	"github.com/certwright/certwright/internal/fakeca"
)

// bound is an account that wants to be bound to kid with a MAC key.
func bound(t *testing.T, u *user, eab acme.EAB) error {
	t.Helper()
	u.account = acme.Account{PrivateKey: ecKey(t, elliptic.P256()), TermsOfServiceAgreed: true}
	if err := u.account.SetExternalAccountBinding(t.Context(), u.Client, eab); err != nil {
		t.Fatal(err)
	}
	var err error
	u.account, err = u.NewAccount(t.Context(), u.account)
	return err
}

func TestP20_ExternalAccountBinding(t *testing.T) {
	key1, key2 := []byte("0123456789abcdef0123456789abcdef"), []byte("another key of some length, really")
	ca := newCA(fakeca.Options{EAB: map[string][]byte{"kid-1": key1, "kid-2": key2}, OneShotEAB: true})
	client := &acme.Client{Directory: ca.Directory(), HTTPClient: ca.Client()}
	u := &user{Client: client, account: acme.Account{PrivateKey: ecKey(t, elliptic.P256()), TermsOfServiceAgreed: true}}
	_, err := u.NewAccount(t.Context(), u.account)
	problem(t, err, "externalAccountRequired")

	good1 := acme.EAB{KeyID: "kid-1", MACKey: base64.RawURLEncoding.EncodeToString(key1)}
	good2 := acme.EAB{KeyID: "kid-2", MACKey: base64.RawURLEncoding.EncodeToString(key2)}
	problem(t, bound(t, u, acme.EAB{KeyID: "kid-1", MACKey: good2.MACKey}), "unauthorized")
	problem(t, bound(t, u, acme.EAB{KeyID: "kid-9", MACKey: good1.MACKey}), "unauthorized")
	if got := ca.Accounts(); got != 0 {
		t.Fatalf("there are %d accounts, want none", got)
	}
	if err := bound(t, u, good1); err != nil {
		t.Fatal(err)
	}
	location := u.account.Location
	u.account = acme.Account{PrivateKey: u.account.PrivateKey, TermsOfServiceAgreed: true}
	u.register(t) // by the same key, which is bound
	if u.account.Location != location {
		t.Errorf("the account moved from %s to %s", location, u.account.Location)
	}
	problem(t, bound(t, u, good1), "unauthorized")
	if err := bound(t, u, good2); err != nil {
		t.Fatal(err)
	}
	if got := ca.Accounts(); got != 2 {
		t.Errorf("there are %d accounts, want 2", got)
	}
}

// TestBindingIsForTheKey replays the binding of one account for another.
func TestBindingIsForTheKey(t *testing.T) {
	mac := []byte("0123456789abcdef0123456789abcdef")
	ca := newCA(fakeca.Options{EAB: map[string][]byte{"kid": mac}})
	r := &rawClient{t: t, ca: ca, http: ca.Client(), key: ecKey(t, elliptic.P256())}
	bind := func(url string) map[string]string {
		head, err := json.Marshal(map[string]string{"alg": "HS256", "kid": "kid", "url": url})
		if err != nil {
			t.Fatal(err)
		}
		jwk, err := json.Marshal(r.jwk())
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{"protected": b64(head), "payload": b64(jwk)}
		h := hmac.New(sha256.New, mac)
		h.Write([]byte(out["protected"] + "." + out["payload"]))
		out["signature"] = b64(h.Sum(nil))
		return out
	}
	ask := func(binding map[string]string) answer {
		r.fetchNonce()
		return r.post("new-account", map[string]any{"termsOfServiceAgreed": true, "externalAccountBinding": binding}, nil)
	}
	binding := bind(r.url("new-account"))
	ask(bind(r.url("new-order"))).want(t, 400, "malformed")
	key := r.key
	r.key = ecKey(t, elliptic.P256())
	ask(binding).want(t, 400, "malformed")
	r.key = key
	ask(binding).wantStatus(t, "valid")
}

func TestAccounts(t *testing.T) {
	ca := newCA(fakeca.Options{})
	client := &acme.Client{Directory: ca.Directory(), HTTPClient: ca.Client()}
	key := ecKey(t, elliptic.P256())
	refused := map[string]acme.Account{
		"userActionRequired": {},
		"unsupportedContact": {TermsOfServiceAgreed: true, Contact: []string{"tel:123"}},
		"invalidContact":     {TermsOfServiceAgreed: true, Contact: []string{"mailto:nobody"}},
	}
	for kind, account := range refused {
		account.PrivateKey = key
		_, err := client.NewAccount(t.Context(), account)
		problem(t, err, kind)
	}
	u := &user{Client: client, account: acme.Account{PrivateKey: key, TermsOfServiceAgreed: true}}
	u.register(t)
	location := u.account.Location
	r := &rawClient{t: t, ca: ca, http: ca.Client(), key: key}
	r.fetchNonce()
	found := r.post("new-account", map[string]any{"onlyReturnExisting": true}, nil)
	if found.wantStatus(t, "valid"); found.status != http.StatusOK || found.header.Get("Location") != location {
		t.Errorf("looking up by key: %d at %s", found.status, found.header.Get("Location"))
	}
	var err error
	u.account.Contact = []string{"mailto:b@example.com"}
	if u.account, err = u.UpdateAccount(t.Context(), u.account); err != nil || u.account.Contact[0] != "mailto:b@example.com" {
		t.Errorf("updating: %+v %v", u.account, err)
	}
	old := u.account
	next := ecKey(t, elliptic.P384())
	if u.account, err = u.AccountKeyRollover(t.Context(), u.account, next); err != nil {
		t.Fatal(err)
	}
	if _, err = u.GetAccount(t.Context(), old); err == nil {
		t.Error("the old key still signs")
	}
	if got, err := u.GetAccount(t.Context(), u.account); err != nil || got.Contact[0] != "mailto:b@example.com" {
		t.Errorf("reading with the new key: %+v %v", got, err)
	}
	other := newUser(t, ca)
	if _, err := other.AccountKeyRollover(t.Context(), other.account, next); err == nil {
		t.Error("two accounts have one key")
	}
	u.account.Status = "deactivated"
	if _, err := u.UpdateAccount(t.Context(), u.account); err != nil {
		t.Fatal(err)
	}
	_, err = u.GetAccount(t.Context(), u.account)
	problem(t, err, "unauthorized")
}

func TestP16_ForgetAccounts(t *testing.T) {
	ca := newCA(fakeca.Options{})
	r := newRaw(t, ca)
	o := r.newOrder(nil, "example.com")
	kid := r.kid
	ca.ForgetAccounts()
	r.get(o.header.Get("Location")).want(t, 400, "accountDoesNotExist")
	if ca.Accounts() != 0 || len(ca.Orders()) != 0 {
		t.Errorf("%d accounts and %d orders are left", ca.Accounts(), len(ca.Orders()))
	}
	r.kid = ""
	r.post("new-account", map[string]any{"onlyReturnExisting": true}, nil).want(t, 400, "accountDoesNotExist")
	a := r.post("new-account", map[string]any{"termsOfServiceAgreed": true}, nil)
	a.wantStatus(t, "valid")
	if r.kid = a.header.Get("Location"); r.kid == kid {
		t.Error("the new account has the URL of the forgotten one")
	}
	if got := r.get(o.header.Get("Location")).status; got != 404 {
		t.Errorf("the old order was answered %d", got)
	}
}
