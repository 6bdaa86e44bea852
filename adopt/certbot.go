package adopt

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/certwright/certwright/internal/certpem"
)

// certbot reads certbot's folder:
//
//	live/<lineage>/{fullchain,privkey}.pem     links into archive
//	archive/<lineage>/{fullchain,privkey}N.pem
//	renewal/<lineage>.conf                     tells the CA and the account
//	accounts/<host>/<path>/<id>/{private_key,regr}.json
//
// A lineage may have any name and be for any names. Where the links were lost
// the newest in archive is taken.
type certbot struct {
	*files
}

// pairs implements layout.
func (c *certbot) pairs(ctx context.Context, names []string) (found []candidate, errs []error) {
	byName, errs := c.index(ctx, func() (map[string][]string, []error) {
		chains, err := c.chains(ctx)
		if err != nil {
			return nil, []error{err}
		}
		return c.byName(ctx, chains)
	})
	for _, file := range covering(byName, names) {
		key := path.Dir(file) + "/" + strings.Replace(path.Base(file), "fullchain", "privkey", 1)
		one, err := c.read(ctx, place{chain: file, key: key}, names)
		if err == nil && one != nil {
			errs = append(errs, c.describe(ctx, path.Base(path.Dir(file)), one)) // the certificate is good without
			err = one.origin()
		}
		if err == nil && one != nil {
			found = append(found, *one)
		}
		errs = append(errs, err)
	}
	return found, errs
}

// chains returns the file with the chain of each lineage.
func (c *certbot) chains(ctx context.Context) ([]string, error) {
	live, err := c.list(ctx, "live")
	if err != nil {
		return nil, err
	}
	var out []string
	done := map[string]bool{}
	for _, file := range live {
		if path.Base(file) != "fullchain.pem" || strings.Count(file, "/") != 2 {
			continue
		}
		if value, err := c.load(ctx, file); err == nil && value == nil {
			continue // the link leads nowhere
		}
		done[path.Base(path.Dir(file))] = true
		out = append(out, file)
	}
	archived, err := c.list(ctx, "archive")
	if err != nil {
		return nil, err
	}
	newest := map[string]string{}
	for _, file := range archived {
		lineage := path.Base(path.Dir(file))
		n := version(file)
		if n > 0 && strings.Count(file, "/") == 2 && !done[lineage] && n > version(newest[lineage]) {
			newest[lineage] = file
		}
	}
	for _, file := range newest {
		out = append(out, file)
	}
	slices.Sort(out)
	return out, nil
}

// version returns N of a fullchainN.pem, 0 for other files.
func version(file string) int {
	digits, ok := strings.CutPrefix(path.Base(file), "fullchain")
	digits, found := strings.CutSuffix(digits, ".pem")
	n, err := strconv.Atoi(digits)
	if !ok || !found || err != nil {
		return 0
	}
	return n
}

// describe adds what the configuration of a lineage tells.
func (c *certbot) describe(ctx context.Context, lineage string, one *candidate) error {
	value, err := c.load(ctx, "renewal/"+lineage+".conf")
	if err != nil {
		return err
	}
	conf := renewalParams(value)
	if one.CA = conf["server"]; one.CA != "" && conf["account"] != "" {
		one.Account, err = c.registration(ctx, accountsDir(one.CA)+"/"+path.Base(conf["account"]))
	}
	return err
}

// renewalParams reads the section [renewalparams] of a lineage's configuration.
// What it does not understand it passes over.
func renewalParams(conf []byte) map[string]string {
	out := map[string]string{}
	section := ""
	for line := range strings.Lines(string(conf)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[] \t") // sections below have more brackets
			if strings.HasPrefix(line, "[[") {
				section = ""
			}
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if ok && section == "renewalparams" && !strings.HasPrefix(line, "#") {
			out[strings.TrimSpace(key)] = strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return out
}

// accountsDir is where certbot keeps the accounts at a CA.
func accountsDir(ca string) string {
	_, rest, _ := strings.Cut(ca, "://")
	return path.Clean("accounts/" + strings.Trim(rest, "/"))
}

// accounts implements layout. certbot goes on with an account that Let's Encrypt
// had before ACME was RFC 8555: it links the folder, or the account in it, to
// the one of then. In a copy such links lead nowhere.
func (c *certbot) accounts(ctx context.Context, directory string) (accounts []Account, errs []error) {
	dir := accountsDir(directory)
	for _, dir := range []string{dir, strings.Replace(dir, "accounts/acme-v02.", "accounts/acme-v01.", 1)} {
		if accounts, errs = c.accountsIn(ctx, dir); len(accounts)+len(errs) > 0 {
			break
		}
	}
	return accounts, errs
}

func (c *certbot) accountsIn(ctx context.Context, dir string) (accounts []Account, errs []error) {
	keys, err := c.list(ctx, dir)
	if err != nil {
		return nil, []error{err}
	}
	for _, file := range keys {
		if path.Base(file) != "private_key.json" || path.Dir(path.Dir(file)) != dir {
			continue
		}
		a, err := c.account(ctx, file)
		if a.KeyPEM != "" {
			accounts = append(accounts, a)
		}
		errs = append(errs, err)
	}
	return accounts, errs
}

// account reads an account. One without a registration is found by its key.
func (c *certbot) account(ctx context.Context, file string) (Account, error) {
	value, err := c.load(ctx, file)
	if err != nil || value == nil {
		return Account{}, err
	}
	key, err := parseJWK(value)
	if err != nil {
		return Account{}, &FileError{File: file, Err: err}
	}
	keyPEM, err := certpem.EncodeKey(key)
	if err != nil {
		return Account{}, &FileError{File: file, Err: err}
	}
	a := Account{File: file, KeyPEM: string(keyPEM)}
	a.Location, err = c.registration(ctx, path.Dir(file))
	return a, err
}

// registration returns the URL of the account in a folder.
func (c *certbot) registration(ctx context.Context, dir string) (string, error) {
	file := dir + "/regr.json"
	value, err := c.load(ctx, file)
	if err != nil || value == nil {
		return "", err
	}
	var regr struct {
		URI string `json:"uri"`
	}
	if err := json.Unmarshal(value, &regr); err != nil {
		return "", &FileError{File: file, Err: fmt.Errorf("it is not an account: %w", err)}
	}
	return regr.URI, nil
}
