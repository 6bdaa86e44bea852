package foreign

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-acme/lego/v5/acme"
	"github.com/go-acme/lego/v5/certcrypto"
	"github.com/go-acme/lego/v5/certificate"
	"github.com/go-acme/lego/v5/challenge/http01"
	"github.com/go-acme/lego/v5/lego"
	"github.com/go-acme/lego/v5/log"
	"github.com/go-acme/lego/v5/registration"
)

// LegoUser is the user of the lego library, whose JSON is the account.json of
// the lego command since version 5.
type LegoUser struct {
	ID           string                `json:"id"`
	Email        string                `json:"email"`
	KeyType      certcrypto.KeyType    `json:"keyType"`
	Server       string                `json:"server"`
	Registration *acme.ExtendedAccount `json:"registration"`

	key crypto.Signer
}

// GetEmail implements registration.User.
func (u *LegoUser) GetEmail() string { return u.Email }

// GetRegistration implements registration.User.
func (u *LegoUser) GetRegistration() *acme.ExtendedAccount { return u.Registration }

// GetPrivateKey implements registration.User.
func (u *LegoUser) GetPrivateKey() crypto.Signer { return u.key }

// LegoRun is what a run of the lego library got.
type LegoRun struct {
	User  *LegoUser
	Certs []*certificate.Resource
}

// Lego has the lego library get one certificate for each list of names.
func Lego(ctx context.Context, ca CA, email string, keyType certcrypto.KeyType, lists ...[]string) (*LegoRun, error) {
	log.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	key, err := certcrypto.GeneratePrivateKey(keyType)
	if err != nil {
		return nil, err
	}
	run := &LegoRun{User: &LegoUser{ID: email, Email: email, KeyType: keyType, Server: ca.Directory, key: key}}
	conf := lego.NewConfig(run.User)
	conf.CADirURL, conf.HTTPClient = ca.Directory, ca.Client
	client, err := lego.NewClient(conf)
	if err != nil {
		return nil, err
	}
	server := http01.NewProviderServerWithOptions(http01.Options{Address: net.JoinHostPort("127.0.0.1", fmt.Sprint(ca.HTTPPort))})
	if err := client.Challenge.SetHTTP01Provider(server); err != nil {
		return nil, err
	}
	if run.User.Registration, err = client.Registration.Register(ctx, registration.RegisterOptions{TermsOfServiceAgreed: true}); err != nil {
		return nil, fmt.Errorf("registering: %w", err)
	}
	for _, names := range lists {
		res, err := client.Certificate.Obtain(ctx, certificate.ObtainRequest{Domains: names, KeyType: keyType, Bundle: true})
		if err != nil {
			return nil, fmt.Errorf("getting a certificate for %q: %w", names, err)
		}
		run.Certs = append(run.Certs, res)
	}
	return run, nil
}

// WriteV5 writes the files of the lego command since version 5.
func (r *LegoRun) WriteV5(dir string) error {
	user := filepath.Join(dir, "accounts", r.server(), r.User.ID)
	account, err := json.MarshalIndent(r.User, "", "\t")
	if err != nil {
		return err
	}
	files := map[string][]byte{
		filepath.Join(user, "account.json"):   account,
		filepath.Join(user, r.User.ID+".key"): r.key(),
	}
	for _, c := range r.Certs {
		meta, err := json.MarshalIndent(c, "", "\t")
		if err != nil {
			return err
		}
		r.addCert(files, dir, c, meta)
	}
	return write(files)
}

// WriteV4 writes the files of the lego command up to version 4.
func (r *LegoRun) WriteV4(dir string) error {
	user := filepath.Join(dir, "accounts", r.server(), r.User.Email)
	account, err := json.MarshalIndent(map[string]any{
		"email": r.User.Email,
		"registration": map[string]any{
			"body": r.User.Registration.Account,
			"uri":  r.User.Registration.Location,
		},
	}, "", "\t")
	if err != nil {
		return err
	}
	files := map[string][]byte{
		filepath.Join(user, "account.json"):              account,
		filepath.Join(user, "keys", r.User.Email+".key"): r.key(),
	}
	for _, c := range r.Certs {
		meta, err := json.MarshalIndent(map[string]string{
			"domain": c.Domains[0], "certUrl": c.CertURL, "certStableUrl": c.CertStableURL,
		}, "", "\t")
		if err != nil {
			return err
		}
		r.addCert(files, dir, c, meta)
	}
	return write(files)
}

func (r *LegoRun) addCert(files map[string][]byte, dir string, c *certificate.Resource, meta []byte) {
	base := filepath.Join(dir, "certificates", strings.NewReplacer(":", "-", "*", "_").Replace(c.Domains[0]))
	files[base+".crt"] = c.Certificate
	files[base+".issuer.crt"] = c.IssuerCertificate
	files[base+".key"] = c.PrivateKey
	files[base+".json"] = meta
	files[base+".pem"] = bytes.Join([][]byte{c.Certificate, c.PrivateKey}, nil)
}

func (r *LegoRun) key() []byte { return pem.EncodeToMemory(certcrypto.PEMBlock(r.User.key)) }

// server is the name of the folder for the CA.
func (r *LegoRun) server() string {
	u, err := url.Parse(r.User.Server)
	if err != nil {
		return ""
	}
	return strings.NewReplacer(":", "_", "/", "_").Replace(u.Host)
}

func write(files map[string][]byte) error {
	for name, data := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(name, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
