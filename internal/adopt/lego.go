package adopt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
)

// lego reads the folder of the lego command:
//
//	certificates/<name>.{crt,key,json,issuer.crt}
//	accounts/<host>/<id>/account.json and <id>.key, or keys/<id>.key until version 4
//
// A certificate may be for more names than its file tells.
type lego struct {
	*files
}

// legoCert is the file beside a certificate.
type legoCert struct {
	URL       string `json:"certUrl"`
	StableURL string `json:"certStableUrl"`
}

// legoAccount is an account of any version: since 5 the registration is the
// account with its URL, before it was a pair of both.
type legoAccount struct {
	Email        string `json:"email"`
	Server       string `json:"server"`
	Registration *struct {
		Status  string   `json:"status"`
		Contact []string `json:"contact"`
		URL     string   `json:"accountURL"`

		URI  string `json:"uri"`
		Body struct {
			Status  string   `json:"status"`
			Contact []string `json:"contact"`
		} `json:"body"`
	} `json:"registration"`
}

// Certificates implements Reader.
func (l *lego) Certificates(ctx context.Context, q Query) (certs []Certificate, errs []*FileError) {
	byName, errs := l.index(ctx, "certificates", func() (map[string][]string, []*FileError) {
		keys, bad := l.list(ctx, "certificates")
		if bad != nil {
			return nil, []*FileError{bad}
		}
		return l.byName(ctx, slices.DeleteFunc(keys, func(key string) bool {
			return path.Ext(key) != ".crt" || strings.HasSuffix(key, ".issuer.crt")
		}))
	})
	for _, file := range covering(byName, q.Names) {
		base := strings.TrimSuffix(file, ".crt")
		cert, bad := l.pair(ctx, file, base+".key", q)
		if bad == nil && cert != nil {
			where, bad2 := l.describe(ctx, base+".json", cert, q)
			errs = appendErr(errs, bad2) // the certificate is good without
			bad = cert.origin(q, where)
		}
		errs = appendErr(errs, bad)
		if bad == nil && cert != nil {
			certs = append(certs, *cert)
		}
	}
	sortBest(certs, q)
	return certs, errs
}

// describe adds what the file beside a certificate tells, and returns the CA's
// host. lego does not keep the directory URL: the host leads to it.
func (l *lego) describe(ctx context.Context, file string, cert *Certificate, q Query) (host string, bad *FileError) {
	value, bad := l.load(ctx, file)
	if bad != nil || value == nil {
		return "", bad
	}
	var meta legoCert
	if err := json.Unmarshal(value, &meta); err != nil {
		return "", &FileError{File: file, Err: fmt.Errorf("it is not what lego writes: %w", err)}
	}
	cert.URL = meta.URL
	host = hostOf(meta.URL)
	if i := slices.IndexFunc(q.CAs, func(ca string) bool { return host != "" && hostOf(ca) == host }); i >= 0 {
		cert.CA = q.CAs[i]
	}
	return host, nil
}

func hostOf(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Host)
}

// legoHost is how lego names the CA with a directory URL in its folders.
func legoHost(ca string) string {
	return strings.NewReplacer(":", "_", "/", "_", `\`, "_").Replace(hostOf(ca))
}

// Accounts implements Reader.
func (l *lego) Accounts(ctx context.Context, ca string) (accounts []Account, errs []*FileError) {
	dir := "accounts/" + legoHost(ca)
	keys, bad := l.list(ctx, dir)
	if bad != nil {
		return nil, []*FileError{bad}
	}
	for _, file := range keys {
		if path.Base(file) != "account.json" {
			continue
		}
		a, bad := l.account(ctx, file, ca)
		errs = appendErr(errs, bad)
		if bad == nil && a != nil {
			accounts = append(accounts, *a)
		}
	}
	return accounts, errs
}

// account reads an account. It returns nil for one at another CA.
func (l *lego) account(ctx context.Context, file, ca string) (*Account, *FileError) {
	value, bad := l.load(ctx, file)
	if bad != nil || value == nil {
		return nil, bad
	}
	r, err := parseLegoAccount(value)
	if err != nil {
		return nil, &FileError{File: file, Err: err}
	}
	if r.Server != "" && !sameCA(r.Server, ca) {
		return nil, nil
	}
	dir := path.Dir(file)
	var a Account
	for _, keyFile := range []string{dir + "/" + path.Base(dir) + ".key", dir + "/keys/" + path.Base(dir) + ".key"} {
		if a, bad = l.accountKey(ctx, keyFile); bad != nil {
			return nil, bad
		}
		if a.Key != nil {
			break
		}
	}
	if a.Key == nil {
		return nil, &FileError{File: file, Err: errors.New("the account's key is missing")}
	}
	a.CA = ca
	status := ""
	if reg := r.Registration; reg != nil {
		a.Location, a.Contact, status = reg.URL, reg.Contact, reg.Status
		if a.Location == "" {
			a.Location, a.Contact, status = reg.URI, reg.Body.Contact, reg.Body.Status
		}
	}
	if len(a.Contact) == 0 && r.Email != "" {
		a.Contact = []string{"mailto:" + r.Email}
	}
	if status != "" && status != "valid" {
		return nil, &FileError{File: file, Err: fmt.Errorf("the account is %q", status)}
	}
	return &a, nil
}

func parseLegoAccount(value []byte) (legoAccount, error) {
	var r legoAccount
	if err := json.Unmarshal(value, &r); err != nil {
		return r, fmt.Errorf("it is not an account: %w", err)
	}
	return r, nil
}
