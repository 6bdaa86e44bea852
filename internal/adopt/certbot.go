package adopt

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
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

// Certificates implements Reader.
func (c *certbot) Certificates(ctx context.Context, q Query) (certs []Certificate, errs []*FileError) {
	byName, errs := c.index(ctx, "live", func() (map[string][]string, []*FileError) {
		chains, bad := c.chains(ctx)
		if bad != nil {
			return nil, []*FileError{bad}
		}
		return c.byName(ctx, chains)
	})
	for _, file := range covering(byName, q.Names) {
		key := path.Dir(file) + "/" + strings.Replace(path.Base(file), "fullchain", "privkey", 1)
		cert, bad := c.pair(ctx, file, key, q)
		if bad == nil && cert != nil {
			errs = appendErr(errs, c.describe(ctx, path.Base(path.Dir(file)), cert)) // the certificate is good without
			bad = cert.origin(q, "")
		}
		errs = appendErr(errs, bad)
		if bad == nil && cert != nil {
			certs = append(certs, *cert)
		}
	}
	sortBest(certs, q)
	return certs, errs
}

// chains returns the file with the chain of each lineage.
func (c *certbot) chains(ctx context.Context) ([]string, *FileError) {
	live, bad := c.list(ctx, "live")
	if bad != nil {
		return nil, bad
	}
	var out []string
	done := map[string]bool{}
	for _, file := range live {
		if path.Base(file) != "fullchain.pem" || strings.Count(file, "/") != 2 {
			continue
		}
		value, bad := c.load(ctx, file)
		if bad == nil && value == nil {
			continue // the link leads nowhere
		}
		done[path.Base(path.Dir(file))] = true
		out = append(out, file)
	}
	archived, bad := c.list(ctx, "archive")
	if bad != nil {
		return nil, bad
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
func (c *certbot) describe(ctx context.Context, lineage string, cert *Certificate) *FileError {
	value, bad := c.load(ctx, "renewal/"+lineage+".conf")
	if bad != nil {
		return bad
	}
	conf := renewalParams(value)
	if cert.CA = conf["server"]; cert.CA != "" && conf["account"] != "" {
		cert.Account, bad = c.registration(ctx, accountsDir(cert.CA)+"/"+path.Base(conf["account"]))
	}
	return bad
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

// Accounts implements Reader.
func (c *certbot) Accounts(ctx context.Context, ca string) (accounts []Account, errs []*FileError) {
	dir := accountsDir(ca)
	keys, bad := c.list(ctx, dir)
	if bad != nil {
		return nil, []*FileError{bad}
	}
	for _, file := range keys {
		if path.Base(file) != "private_key.json" || path.Dir(path.Dir(file)) != dir {
			continue
		}
		a, bad := c.account(ctx, file)
		errs = appendErr(errs, bad)
		if a.Key != nil {
			a.CA = ca
			accounts = append(accounts, a)
		}
	}
	return accounts, errs
}

// account reads an account. One without a registration is found by its key.
func (c *certbot) account(ctx context.Context, file string) (Account, *FileError) {
	value, bad := c.load(ctx, file)
	if bad != nil || value == nil {
		return Account{}, bad
	}
	key, err := parseJWK(value)
	if err != nil {
		return Account{}, &FileError{File: file, Err: err}
	}
	a := Account{File: file, Key: key}
	a.Location, bad = c.registration(ctx, path.Dir(file))
	return a, bad
}

// registration returns the URL of the account in a folder.
func (c *certbot) registration(ctx context.Context, dir string) (string, *FileError) {
	file := dir + "/regr.json"
	value, bad := c.load(ctx, file)
	if bad != nil || value == nil {
		return "", bad
	}
	var regr struct {
		URI string `json:"uri"`
	}
	if err := json.Unmarshal(value, &regr); err != nil {
		return "", &FileError{File: file, Err: fmt.Errorf("it is not an account: %w", err)}
	}
	return regr.URI, nil
}
