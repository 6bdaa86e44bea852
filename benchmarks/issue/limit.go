package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// pollEvery is how often the limit looks for a result. Without a pause one
// certificate takes 5 % less, with half as many requests again.
const pollEvery = time.Millisecond

// limit is acmez's protocol client with nothing around it: nothing is stored,
// checked or logged. The validation port is bound beforehand.
type limit struct {
	set    settings
	client *acme.Client
	server *server

	once    sync.Once
	account acme.Account
	err     error // of the account

	answers sync.Map // key authorizations by token, certificates by name
}

func openLimit(s settings) (column, error) {
	return &limit{set: s, client: &acme.Client{
		// What acmez knows of a directory it knows in the whole process.
		Directory:    fmt.Sprintf("%s?%d", s.ca.Directory(), time.Now().UnixNano()),
		HTTPClient:   &http.Client{Transport: withoutARI{s.ca.Client().Transport}},
		PollInterval: pollEvery,
	}}, nil
}

// withoutARI keeps acmez from fetching renewal information with each chain.
type withoutARI struct{ base http.RoundTripper }

func (t withoutARI) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(r)
	if err != nil || r.Method != http.MethodGet {
		return resp, err
	}
	defer resp.Body.Close()
	var dir map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&dir); err != nil {
		return nil, err
	}
	delete(dir, "renewalInfo")
	body, err := json.Marshal(dir)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, err
}

func (l *limit) enter() (err error) {
	if l.set.dns != nil {
		return nil
	}
	if l.set.challenge == "http-01" {
		l.server, err = serve(l.set.ca.HTTPPort(), http.HandlerFunc(l.answer), nil)
		return err
	}
	l.server, err = serve(l.set.ca.TLSPort(), http.NotFoundHandler(), func(ln net.Listener) net.Listener {
		return tls.NewListener(ln, &tls.Config{NextProtos: []string{"acme-tls/1"}, GetCertificate: l.certificate})
	})
	return err
}

func (l *limit) leave() error {
	if l.set.dns != nil {
		return nil
	}
	return l.server.close()
}

func (l *limit) close() error { return nil }

func (l *limit) answer(w http.ResponseWriter, r *http.Request) {
	if v, ok := l.answers.Load(path.Base(r.URL.Path)); ok {
		_, _ = io.WriteString(w, v.(string))
		return
	}
	http.NotFound(w, r)
}

func (l *limit) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if v, ok := l.answers.Load(hello.ServerName); ok {
		return v.(*tls.Certificate), nil
	}
	return nil, errors.New("unknown name")
}

func (l *limit) issue(ctx context.Context, names []string) error {
	if l.set.dns != nil {
		return l.one(ctx, names...)
	}
	return each(ctx, names, l.set.inFlight, func(ctx context.Context, name string) error { return l.one(ctx, name) })
}

func (l *limit) register(ctx context.Context) error {
	l.once.Do(func() {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			l.err = err
			return
		}
		l.account, l.err = l.client.NewAccount(ctx, acme.Account{TermsOfServiceAgreed: true, PrivateKey: key})
	})
	return l.err
}

// one gets one certificate.
func (l *limit) one(ctx context.Context, names ...string) (err error) {
	if err := l.register(ctx); err != nil {
		return err
	}
	var ids []acme.Identifier
	for _, n := range names {
		ids = append(ids, acme.Identifier{Type: "dns", Value: n})
	}
	order, err := l.client.NewOrder(ctx, l.account, acme.Order{Identifiers: ids})
	if err != nil {
		return err
	}
	if l.set.dns != nil {
		deleting, solveErr := l.solveDNS(ctx, order.Authorizations)
		defer func() { err = errors.Join(err, deleting.Wait()) }()
		if solveErr != nil {
			return solveErr
		}
		return l.finish(ctx, order, names)
	}
	for _, u := range order.Authorizations {
		if err := l.authorize(ctx, u); err != nil {
			return err
		}
	}
	return l.finish(ctx, order, names)
}

// finish gets the certificate of an order whose authorizations are valid.
func (l *limit) finish(ctx context.Context, order acme.Order, names []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, key)
	if err != nil {
		return err
	}
	if order, err = l.client.FinalizeOrder(ctx, l.account, order, csr); err != nil {
		return err
	}
	chains, err := l.client.GetCertificateChain(ctx, l.account, order.Certificate)
	if err != nil {
		return err
	}
	if len(chains) == 0 {
		return errors.New("no chain")
	}
	return nil
}

func (l *limit) authorize(ctx context.Context, u string) error {
	authz, err := l.client.GetAuthorization(ctx, l.account, u)
	if err != nil {
		return err
	}
	for _, ch := range authz.Challenges {
		if ch.Type != l.set.challenge {
			continue
		}
		if ch.Type == "http-01" {
			l.answers.Store(ch.Token, ch.KeyAuthorization)
		} else {
			cert, err := acmez.TLSALPN01ChallengeCert(ch)
			if err != nil {
				return err
			}
			l.answers.Store(ch.Identifier.Value, cert)
		}
		if _, err := l.client.InitiateChallenge(ctx, l.account, ch); err != nil {
			return err
		}
		_, err := l.client.PollAuthorization(ctx, l.account, authz)
		return err
	}
	return fmt.Errorf("the CA offers no %s", l.set.challenge)
}
