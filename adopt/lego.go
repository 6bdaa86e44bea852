package adopt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// legoIssuer ends the name of the file with the chain above the leaf, which the
// certificate's own file lacks when lego ran without its bundle.
const legoIssuer = ".issuer.crt"

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

// pairs implements layout.
func (l *lego) pairs(ctx context.Context, names []string) (found []candidate, errs []error) {
	byName, errs := l.index(ctx, func() (map[string][]string, []error) {
		keys, err := l.list(ctx, "certificates")
		if err != nil {
			return nil, []error{err}
		}
		return l.byName(ctx, slices.DeleteFunc(keys, func(key string) bool {
			return path.Ext(key) != ".crt" || strings.HasSuffix(key, legoIssuer)
		}))
	})
	for _, file := range covering(byName, names) {
		base := strings.TrimSuffix(file, ".crt")
		c, err := l.read(ctx, place{chain: file, key: base + ".key", issuer: base + legoIssuer}, names)
		if err == nil && c != nil {
			errs = append(errs, l.describe(ctx, base+".json", c)) // the certificate is good without
			err = c.origin()
		}
		if err == nil && c != nil {
			found = append(found, *c)
		}
		errs = append(errs, err)
	}
	return found, errs
}

// describe adds what the file beside a certificate tells. lego does not keep the
// directory URL of the CA.
func (l *lego) describe(ctx context.Context, file string, c *candidate) error {
	value, err := l.load(ctx, file)
	if err != nil || value == nil {
		return err
	}
	var meta legoCert
	if err := json.Unmarshal(value, &meta); err != nil {
		return &FileError{File: file, Err: fmt.Errorf("it is not what lego writes: %w", err)}
	}
	c.URL = meta.URL
	return nil
}

// legoHost is how lego names the CA with a directory URL in its folders.
func legoHost(ca string) string {
	return strings.NewReplacer(":", "_", "/", "_", `\`, "_").Replace(hostOf(ca))
}

// accounts implements layout.
func (l *lego) accounts(ctx context.Context, directory string) (accounts []Account, errs []error) {
	keys, err := l.list(ctx, "accounts/"+legoHost(directory))
	if err != nil {
		return nil, []error{err}
	}
	for _, file := range keys {
		if path.Base(file) != "account.json" {
			continue
		}
		a, err := l.account(ctx, file, directory)
		if a != nil {
			accounts = append(accounts, *a)
		}
		errs = append(errs, err)
	}
	return accounts, errs
}

// account reads an account. It returns nil for one at another CA.
func (l *lego) account(ctx context.Context, file, directory string) (*Account, error) {
	value, err := l.load(ctx, file)
	if err != nil || value == nil {
		return nil, err
	}
	r, err := parseLegoAccount(value)
	if err != nil {
		return nil, &FileError{File: file, Err: err}
	}
	if r.Server != "" && !sameCA(r.Server, directory) {
		return nil, nil
	}
	dir := path.Dir(file)
	var a Account
	for _, keyFile := range []string{dir + "/" + path.Base(dir) + ".key", dir + "/keys/" + path.Base(dir) + ".key"} {
		if a, err = l.accountKey(ctx, keyFile); err != nil {
			return nil, err
		}
		if a.KeyPEM != "" {
			break
		}
	}
	if a.KeyPEM == "" {
		return nil, &FileError{File: file, Err: errors.New("the account's key is missing")}
	}
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
