package fakeca

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
)

// account is guarded by CA.mu, but for id.
type account struct {
	id      string
	key     publicKey
	status  string
	contact []string
	valid   map[Identifier]*authz // the last valid authorization, wildcards with "*."
}

// signer is an account with its key as it was when a request came in.
type signer struct {
	account *account
	key     publicKey
}

// accountByURL finds the account that a kid names.
func (c *CA) accountByURL(base, kid string) (signer, *Problem) {
	id, ok := strings.CutPrefix(kid, base+"/account/")
	if !ok {
		return signer{}, malformed("KeyID header contained an invalid account URL: %q", kid)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	acct := c.accounts[id]
	if acct == nil {
		return signer{}, NewProblem("accountDoesNotExist", http.StatusBadRequest, "account "+kid+" not found")
	}
	if acct.status != "valid" {
		return signer{}, NewProblem("unauthorized", http.StatusUnauthorized, "the account is "+acct.status)
	}
	return signer{acct, acct.key}, nil
}

// accountReplyLocked shows an account.
func (c *CA) accountReplyLocked(in *call, acct *account, status int) *reply {
	out := map[string]any{"status": acct.status}
	if len(acct.contact) > 0 {
		out["contact"] = acct.contact
	}
	r := jsonReply(status, out)
	r.header.Set("Location", in.url("account", acct.id))
	return r
}

func (c *CA) newAccount(_ context.Context, in *call) (*reply, error) {
	var ask struct {
		Contact      []string        `json:"contact"`
		Agreed       bool            `json:"termsOfServiceAgreed"`
		OnlyExisting bool            `json:"onlyReturnExisting"`
		EAB          json.RawMessage `json:"externalAccountBinding"`
	}
	if bad := in.decode(&ask); bad != nil {
		return nil, bad
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if acct := c.byKey[in.key.thumbprint]; acct != nil {
		if acct.status != "valid" {
			return nil, NewProblem("unauthorized", http.StatusUnauthorized, "the account is "+acct.status)
		}
		return c.accountReplyLocked(in, acct, http.StatusOK), nil
	}
	if ask.OnlyExisting {
		return nil, NewProblem("accountDoesNotExist", http.StatusBadRequest, "there is no account with this key")
	}
	if !ask.Agreed {
		return nil, NewProblem("userActionRequired", http.StatusForbidden, "the terms of service are not agreed to")
	}
	if bad := checkContact(ask.Contact); bad != nil {
		return nil, bad
	}
	if bad := c.bindLocked(in, ask.EAB); bad != nil {
		return nil, bad
	}
	acct := &account{
		id:      c.nextIDLocked(),
		key:     in.key,
		status:  "valid",
		contact: ask.Contact,
		valid:   make(map[Identifier]*authz),
	}
	c.accounts[acct.id], c.byKey[in.key.thumbprint] = acct, acct
	return c.accountReplyLocked(in, acct, http.StatusCreated), nil
}

func checkContact(contact []string) *Problem {
	for _, s := range contact {
		address, ok := strings.CutPrefix(s, "mailto:")
		if !ok {
			return NewProblem("unsupportedContact", http.StatusBadRequest, "a contact is not a mailto: URL")
		}
		if !strings.Contains(address, "@") || strings.ContainsAny(address, ",?") {
			return NewProblem("invalidContact", http.StatusBadRequest, "a contact is not one address")
		}
	}
	return nil
}

// bindLocked checks an external account binding (RFC 8555 section 7.3.4).
func (c *CA) bindLocked(in *call, raw json.RawMessage) *Problem {
	if c.opt.EAB == nil {
		return nil
	}
	if len(raw) == 0 || string(raw) == "null" {
		return NewProblem("externalAccountRequired", http.StatusForbidden, "an external account binding is required")
	}
	inner, bad := parseJWS(raw)
	if bad != nil {
		return bad
	}
	head := inner.protected
	if head.Nonce != "" || head.URL != in.req.URL || head.JWK != nil {
		return malformed("the binding's protected header does not fit")
	}
	if key, err := parseJWK(inner.payload); err != nil || key.thumbprint != in.key.thumbprint {
		return malformed("the binding is not for the account's key")
	}
	mac, ok := c.opt.EAB[head.Kid]
	if !ok || !inner.checkMAC(mac) {
		return unauthorized("the binding's key identifier is unknown or its MAC is wrong")
	}
	if c.opt.OneShotEAB && c.usedEAB[head.Kid] {
		return unauthorized("the binding's key identifier has been used already")
	}
	c.usedEAB[head.Kid] = true
	return nil
}

func (c *CA) account(_ context.Context, in *call) (*reply, error) {
	if in.id != in.acct.id {
		return nil, unauthorized("the account is not yours")
	}
	var ask struct {
		Contact *[]string `json:"contact"`
		Status  string    `json:"status"`
	}
	if !in.postAsGet() {
		if bad := in.decode(&ask); bad != nil {
			return nil, bad
		}
	}
	if ask.Contact != nil {
		if bad := checkContact(*ask.Contact); bad != nil {
			return nil, bad
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if ask.Contact != nil {
		in.acct.contact = *ask.Contact
	}
	if ask.Status == "deactivated" {
		in.acct.status = ask.Status
	}
	return c.accountReplyLocked(in, in.acct, http.StatusOK), nil
}

// keyChange gives an account a new key (RFC 8555 section 7.3.5).
func (c *CA) keyChange(_ context.Context, in *call) (*reply, error) {
	inner, bad := parseJWS(in.req.Payload)
	if bad != nil {
		return nil, bad
	}
	head := inner.protected
	if head.Kid != "" || head.Nonce != "" || head.URL != in.req.URL {
		return nil, malformed("the inner protected header does not fit")
	}
	key, err := parseJWK(head.JWK)
	if err != nil {
		return nil, NewProblem("badPublicKey", http.StatusBadRequest, err.Error())
	}
	if bad := inner.check(key); bad != nil {
		return nil, bad
	}
	var ask struct {
		Account string          `json:"account"`
		OldKey  json.RawMessage `json:"oldKey"`
	}
	if err := json.Unmarshal(inner.payload, &ask); err != nil {
		return nil, malformed("the inner payload does not fit: %v", err)
	}
	old, err := parseJWK(ask.OldKey)
	if err != nil || old.thumbprint != in.key.thumbprint || ask.Account != in.req.Kid {
		return nil, malformed("the inner payload is not about the account and its key")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if other := c.byKey[key.thumbprint]; other != nil {
		p := NewProblem("malformed", http.StatusConflict, "the new key is that of an account")
		p.Header = http.Header{"Location": {in.url("account", other.id)}}
		return nil, p
	}
	delete(c.byKey, in.acct.key.thumbprint)
	in.acct.key = key
	c.byKey[key.thumbprint] = in.acct
	return c.accountReplyLocked(in, in.acct, http.StatusOK), nil
}
