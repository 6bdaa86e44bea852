package foreign

import (
	"bytes"
	"crypto/md5" //nolint:gosec // certbot names accounts so
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
)

// WriteCertbot writes what a run got as certbot would, with an RSA account key.
// Lineages are named after the first name; the one called broken has links that
// lead nowhere, as they do in a copy that was made without them.
func (r *LegoRun) WriteCertbot(dir, broken string) error {
	key, ok := r.User.key.(*rsa.PrivateKey)
	if !ok {
		return errors.New("certbot's account keys are RSA")
	}
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	id := fmt.Sprintf("%x", md5.Sum(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub})))
	jwk, err := json.Marshal(rsaJWK(key))
	if err != nil {
		return err
	}
	regr, err := json.Marshal(map[string]any{"body": map[string]any{}, "uri": r.User.Registration.Location})
	if err != nil {
		return err
	}
	account := filepath.Join(dir, "accounts", strings.TrimPrefix(r.User.Server, "https://"), id)
	files := map[string][]byte{
		filepath.Join(account, "meta.json"):        []byte(`{"creation_dt": "2026-01-02T03:04:05Z", "creation_host": "www", "register_to_eff": null}`),
		filepath.Join(account, "private_key.json"): jwk,
		filepath.Join(account, "regr.json"):        regr,
		filepath.Join(dir, "live", "README"):       []byte("This directory contains your keys and certificates.\n"),
	}
	links := map[string]string{}
	for _, c := range r.Certs {
		lineage := strings.TrimPrefix(c.Domains[0], "*.")
		for part, data := range map[string][]byte{
			"cert":      bytes.TrimSuffix(c.Certificate, c.IssuerCertificate),
			"chain":     c.IssuerCertificate,
			"fullchain": c.Certificate,
			"privkey":   c.PrivateKey,
		} {
			files[filepath.Join(dir, "archive", lineage, part+"2.pem")] = data
			if lineage != broken {
				links[filepath.Join(dir, "live", lineage, part+".pem")] = filepath.Join("..", "..", "archive", lineage, part+"2.pem")
			}
		}
		files[filepath.Join(dir, "renewal", lineage+".conf")] = renewalConf(lineage, id, r.User.Server)
	}
	if err := write(files); err != nil {
		return err
	}
	for name, target := range links {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		if err := os.Symlink(target, name); err != nil {
			return err
		}
	}
	return nil
}

// rsaJWK is a private key as certbot stores it (RFC 7518 §6.3).
func rsaJWK(k *rsa.PrivateKey) map[string]string {
	n := func(i *big.Int) string { return base64.RawURLEncoding.EncodeToString(i.Bytes()) }
	return map[string]string{
		"kty": "RSA", "n": n(k.N), "e": n(big.NewInt(int64(k.E))), "d": n(k.D), "p": n(k.Primes[0]), "q": n(k.Primes[1]),
		"dp": n(k.Precomputed.Dp), "dq": n(k.Precomputed.Dq), "qi": n(k.Precomputed.Qinv),
	}
}

func renewalConf(lineage, account, server string) []byte {
	return fmt.Appendf(nil, `# renew_before_expiry = 30 days
version = 2.11.0
archive_dir = /etc/letsencrypt/archive/%[1]s
cert = /etc/letsencrypt/live/%[1]s/cert.pem
privkey = /etc/letsencrypt/live/%[1]s/privkey.pem
chain = /etc/letsencrypt/live/%[1]s/chain.pem
fullchain = /etc/letsencrypt/live/%[1]s/fullchain.pem

# Options used in the renewal process
[renewalparams]
account = %[2]s
authenticator = standalone
server = %[3]s
key_type = rsa
`, lineage, account, server)
}
