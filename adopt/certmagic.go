package adopt

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/certpem"
	"github.com/certwright/certwright/internal/hostname"
)

// certMagic reads a store of CertMagic or Caddy:
//
//	certificates/<issuer>/<site>/<site>.{crt,key,json}
//	acme/<issuer>/users/<email>/<user>.{json,key}
type certMagic struct {
	*files
}

// caddyLocal is the issuer of Caddy's internal CA.
const caddyLocal = "local"

// safe is how CertMagic makes a component of a key. Two names may have the same.
func safe(s string) string {
	s = strings.TrimSpace(strings.ToLower(s))
	s = strings.NewReplacer(" ", "_", "+", "_plus_", "*", "wildcard_", ":", "-", "..", "").Replace(s)
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_@.-", r) {
			return r
		}
		return -1
	}, s)
}

// caSegment is how CertMagic names the CA with a directory URL in its keys.
func caSegment(ca string) string {
	u, err := url.Parse(ca)
	if err != nil {
		return ""
	}
	p := strings.NewReplacer("/", "-", `\`, "-").Replace(u.Path)
	if p = strings.Trim(p, "-"); p == "" {
		return safe(u.Host)
	}
	return safe(u.Host + "-" + p)
}

// sites are the folders in which a certificate for names can be.
func sites(names []string) []string {
	sorted := slices.Clone(names)
	slices.Sort(sorted)
	out := []string{safe(strings.Join(sorted, ","))}
	if len(names) == 1 && !hostname.IsIP(names[0]) && !hostname.IsWildcard(names[0]) {
		if parent := hostname.Parent(names[0]); parent != "" {
			out = append(out, safe("*."+parent))
		}
	}
	return out
}

// pairs implements layout.
func (c *certMagic) pairs(ctx context.Context, names []string) (found []candidate, errs []error) {
	bySite, errs := c.index(ctx, func() (map[string][]string, []error) { return c.bySite(ctx) })
	for _, site := range sites(names) {
		for _, base := range bySite[site] {
			one, err := c.certificate(ctx, base, names)
			if one != nil {
				found = append(found, *one)
			}
			errs = append(errs, err...)
		}
	}
	return found, errs
}

// bySite finds the certificates of each site, as keys without their ending.
func (c *certMagic) bySite(ctx context.Context) (map[string][]string, []error) {
	keys, err := c.list(ctx, "certificates")
	if err != nil {
		return nil, []error{err}
	}
	out := map[string][]string{}
	for _, key := range keys {
		base, ok := strings.CutSuffix(key, ".crt")
		parts := strings.Split(base, "/")
		if ok && len(parts) == 4 && parts[0] == "certificates" && parts[2] == parts[3] {
			out[parts[3]] = append(out[parts[3]], base)
		}
	}
	return out, nil
}

// certificate reads the three files of a certificate. It is nil when it is gone
// since it was listed, or of no use.
func (c *certMagic) certificate(ctx context.Context, base string, names []string) (*candidate, []error) {
	one, err := c.read(ctx, place{chain: base + ".crt", key: base + ".key"}, names)
	if err != nil || one == nil {
		return nil, []error{err}
	}
	segment := strings.Split(base, "/")[1]
	if segment == caddyLocal {
		return nil, []error{&FileError{File: one.File, Err: errors.New("it was issued by Caddy's internal CA")}}
	}
	told := c.describe(ctx, base+".json", one) // the certificate is good without
	if !strings.HasPrefix(segment, safe(hostOf(cmp.Or(one.CA, one.URL)))) {
		one.CA, one.Account, one.URL = "", "", "" // the folder tells the issuer
	}
	if one.CA == "" && strings.Contains(segment, "staging") {
		return nil, []error{told, &FileError{File: one.File, Err: errors.New("it was issued by a CA for tests")}}
	}
	if err := one.origin(); err != nil {
		return nil, []error{told, err}
	}
	return one, []error{told}
}

// certMagicMeta is the file beside a certificate. What an issuer keeps is its
// own affair; ACME issuers keep what is described here.
type certMagicMeta struct {
	IssuerData json.RawMessage `json:"issuer_data"`
}

type certMagicACME struct {
	URL         string `json:"url"`
	CA          string `json:"ca"`
	Account     string `json:"account"`
	RenewalInfo *struct {
		SuggestedWindow struct {
			Start time.Time `json:"start"`
			End   time.Time `json:"end"`
		} `json:"suggestedWindow"`
		ExplanationURL string     `json:"explanationURL"`
		ID             string     `json:"_uniqueIdentifier"`
		RetryAfter     *time.Time `json:"_retryAfter"`
	} `json:"renewal_info"`
}

// describe adds to a pair what the file beside it tells. A file that is missing
// tells nothing.
func (c *certMagic) describe(ctx context.Context, file string, one *candidate) error {
	value, err := c.load(ctx, file)
	if err != nil || value == nil {
		return err
	}
	var meta certMagicMeta
	if err := json.Unmarshal(value, &meta); err != nil {
		return &FileError{File: file, Err: fmt.Errorf("it is not what CertMagic writes: %w", err)}
	}
	var data certMagicACME
	if json.Unmarshal(meta.IssuerData, &data) != nil {
		return nil // of another kind of issuer
	}
	one.CA, one.Account, one.URL = data.CA, data.Account, data.URL
	info := data.RenewalInfo
	if info == nil || info.SuggestedWindow.Start.IsZero() || info.SuggestedWindow.End.IsZero() {
		return nil
	}
	if id, err := certpem.CertID(one.leaf); info.ID != "" && (err != nil || id != info.ID) {
		return nil // of the certificate before
	}
	one.Info = &RenewalInfo{Start: info.SuggestedWindow.Start, End: info.SuggestedWindow.End, ExplanationURL: info.ExplanationURL}
	if info.RetryAfter != nil {
		one.Info.Refresh = *info.RetryAfter
	}
	return nil
}

// certMagicAccount is an account as CertMagic keeps it (RFC 8555 §7.1.2).
type certMagicAccount struct {
	Status   string   `json:"status"`
	Contact  []string `json:"contact"`
	Location string   `json:"location"`
	EAB      *struct {
		Protected string `json:"protected"`
	} `json:"externalAccountBinding"`
}

// accounts implements layout.
func (c *certMagic) accounts(ctx context.Context, directory string) (accounts []Account, errs []error) {
	users := "acme/" + caSegment(directory) + "/users"
	keys, err := c.list(ctx, users)
	if err != nil {
		return nil, []error{err}
	}
	for _, file := range keys {
		if path.Ext(file) != ".key" || strings.Count(file, "/") != strings.Count(users, "/")+2 {
			continue
		}
		a, err := c.account(ctx, file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		accounts = append(accounts, a)
	}
	return accounts, errs
}

func (c *certMagic) account(ctx context.Context, file string) (Account, error) {
	a, err := c.accountKey(ctx, file)
	if err == nil && a.KeyPEM == "" {
		err = &FileError{File: file, Err: errors.New("it is gone")}
	}
	if err != nil {
		return a, err
	}
	file = strings.TrimSuffix(file, ".key") + ".json"
	value, err := c.load(ctx, file)
	if err != nil || value == nil {
		return a, err // the key alone finds the account
	}
	r, err := parseCertMagicAccount(value)
	if err != nil {
		return a, &FileError{File: file, Err: err}
	}
	if r.Status != "" && r.Status != "valid" {
		return a, &FileError{File: file, Err: fmt.Errorf("the account is %q", r.Status)}
	}
	a.Contact, a.Location = r.Contact, r.Location
	if r.EAB != nil {
		a.EABKeyID = keyIDOf(r.EAB.Protected)
	}
	return a, nil
}

func parseCertMagicAccount(value []byte) (certMagicAccount, error) {
	var r certMagicAccount
	if err := json.Unmarshal(value, &r); err != nil {
		return r, fmt.Errorf("it is not an account: %w", err)
	}
	return r, nil
}

// keyIDOf returns the key ID in the protected header of an external account
// binding (RFC 8555 §7.3.4), "" when there is none to be found.
func keyIDOf(protected string) string {
	raw, err := base64.RawURLEncoding.DecodeString(protected)
	if err != nil {
		return ""
	}
	var header struct {
		KeyID string `json:"kid"`
	}
	if json.Unmarshal(raw, &header) != nil {
		return ""
	}
	return header.KeyID
}
