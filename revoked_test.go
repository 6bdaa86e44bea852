package certwright_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
)

// ocspResponder answers OCSP requests in process.
type ocspResponder struct {
	ca    *fakeca.CA
	delay time.Duration

	mu      sync.Mutex // guards the fields below
	asked   int
	revoked map[string]int // reason by serial
}

func (f *ocspResponder) revoke(serial *big.Int, reason int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.revoked == nil {
		f.revoked = map[string]int{}
	}
	f.revoked[serial.String()] = reason
}

func (f *ocspResponder) RoundTrip(r *http.Request) (*http.Response, error) {
	raw, err := ocspRequest(r)
	if err != nil {
		return nil, err
	}
	req, err := ocsp.ParseRequest(raw)
	if err != nil {
		return nil, err
	}
	select {
	case <-time.After(f.delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	issuer, key := f.ca.Intermediate()
	now := time.Now().Truncate(time.Second)
	out := ocsp.Response{Status: ocsp.Good, SerialNumber: req.SerialNumber, ThisUpdate: now, NextUpdate: now.Add(7 * day)}
	f.mu.Lock()
	f.asked++
	if reason, ok := f.revoked[req.SerialNumber.String()]; ok {
		out.Status, out.RevokedAt, out.RevocationReason = ocsp.Revoked, now, reason
	}
	f.mu.Unlock()
	body, err := ocsp.CreateResponse(issuer, issuer, out, key)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/ocsp-response"}},
		Body: io.NopCloser(bytes.NewReader(body)), Request: r,
	}, nil
}

// ocspRequest reads either form of a request (RFC 6960 appendix A).
func ocspRequest(r *http.Request) ([]byte, error) {
	if r.Method == http.MethodPost {
		return io.ReadAll(r.Body)
	}
	text, err := url.PathUnescape(r.URL.EscapedPath()[strings.LastIndex(r.URL.EscapedPath(), "/")+1:])
	if err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(text)
}

const ocspURL = "http://ocsp.test"

// startWith is start with a responder.
func startWith(t testing.TB, conf Config, r *ocspResponder) *Manager {
	t.Helper()
	m := startAlone(t, conf)
	UseResponder(m, r)
	return m
}

// TestSlowResponderHoldsUpNoStart starts on 200 stored certificates.
func TestSlowResponderHoldsUpNoStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		conf.Issuers = []Issuer{&quickSigner{ca: ca, life: 90 * day, ocsp: ocspURL}}
		first := conf
		first.DisableStapling = true
		m := start(t, first)
		names := numbered(200, "example.com")
		manage(t, m, names...)
		closeManager(t, m)
		slow := &ocspResponder{ca: ca, delay: 10 * time.Second}
		m = startWith(t, conf, slow)
		began := time.Now()
		manage(t, m, names...)
		if d := time.Since(began); d >= time.Second {
			t.Errorf("ready after %v", d)
		}
		for _, name := range names {
			mustLeaf(t, m, name)
		}
		time.Sleep(200 / 16 * 11 * time.Second)
		synctest.Wait()
		slow.mu.Lock()
		defer slow.mu.Unlock()
		if slow.asked != 200 {
			t.Errorf("the responder was asked %d times; want once a certificate", slow.asked)
		}
	})
}

func TestNoResponderNoWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, conf := newFake(t, fakeca.Options{NoARI: true})
		log, logs := observed(slog.LevelWarn)
		conf.Logger = log
		m := startAlone(t, conf)
		manage(t, m, "a.example.com")
		time.Sleep(100 * day)
		if logs.Len() != 0 {
			t.Errorf("warnings: %v", logs.All())
		}
		if s := statusFor(t, m, "a.example.com"); !s.StapleNextUpdate.IsZero() || s.State != StateValid {
			t.Errorf("status = %+v", s)
		}
	})
}

// TestRevokedCertificateIsReplacedWithANewKey has the responder say so, for each reason (RFC 5280 §5.3.1).
func TestRevokedCertificateIsReplacedWithANewKey(t *testing.T) {
	for _, reason := range []int{0, 1, 2, 3, 4, 5, 6, 8, 9, 10} {
		t.Run(fmt.Sprint(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, conf := newFake(t, fakeca.Options{OCSPURL: ocspURL})
				var events eventLog
				conf.OnEvent = events.add
				responder := &ocspResponder{ca: ca}
				m := startWith(t, conf, responder)
				manage(t, m, "a.example.com")
				first := mustLeaf(t, m, "a.example.com")
				time.Sleep(time.Minute)
				if s := statusFor(t, m, "a.example.com"); s.StapleNextUpdate.IsZero() {
					t.Error("no response is stapled")
				}
				responder.revoke(first.SerialNumber, reason)
				time.Sleep(4*day + 12*time.Hour)
				leaf := mustLeaf(t, m, "a.example.com")
				if leaf.Equal(first) {
					t.Fatal("the revoked certificate is still served")
				}
				if slices.Equal(leaf.RawSubjectPublicKeyInfo, first.RawSubjectPublicKeyInfo) {
					t.Error("the new certificate has the key of the revoked one")
				}
				if s := statusFor(t, m, "a.example.com"); s.Revoked || s.StapleNextUpdate.IsZero() {
					t.Errorf("status = %+v; want not revoked, and a staple", s)
				}
				if n := ca.Count("newOrder"); n != 2 || events.count(EventRevoked) != 1 || events.count(EventRenewed) != 1 {
					t.Errorf("%d orders, events %v", n, events.kinds(""))
				}
			})
		})
	}
}

// TestRevokedWhileTheCAFails follows the back-off, over a restart too, and
// replaces once the CA is well.
func TestRevokedWhileTheCAFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{OCSPURL: ocspURL})
		responder := &ocspResponder{ca: ca}
		m := startWith(t, conf, responder)
		manage(t, m, "a.example.com")
		first := mustLeaf(t, m, "a.example.com")
		synctest.Wait()
		remove := ca.On(fakeca.Rule{Endpoint: "newOrder", Problem: fakeca.NewProblem("unauthorized", 403, "")})
		responder.revoke(first.SerialNumber, 1)
		time.Sleep(5 * day)
		if s := statusFor(t, m, "a.example.com"); !s.Revoked || s.State != StateFailing {
			t.Errorf("status = %+v; want revoked and failing", s)
		}
		// Each attempt is one order that names the replaced certificate and,
		// because that may be the reason of the refusal, one that does not.
		if n, tries := ca.Count("newOrder"), statusFor(t, m, "a.example.com").Attempts; tries < 3 || tries > 14 || n > 1+2*tries {
			t.Errorf("%d attempts, %d orders; want a back-off", tries, n)
		}
		if cert, err := m.GetCertificate(helloFor("a.example.com", "")); err != nil || len(cert.OCSPStaple) != 0 {
			t.Error("a staple goes with a revoked certificate")
		}
		closeManager(t, m)
		before := ca.Count("newOrder")
		m = startWith(t, conf, responder)
		manage(t, m, "a.example.com")
		synctest.Wait()
		if n := ca.Count("newOrder"); n > before+2 {
			t.Errorf("%d orders at a restart", n-before)
		}
		remove()
		time.Sleep(7 * time.Hour)
		if mustLeaf(t, m, "a.example.com").Equal(first) {
			t.Error("the revoked certificate is still served")
		}
	})
}

// everRevoked is a responder that calls every certificate revoked.
type everRevoked struct{ *ocspResponder }

func (f everRevoked) RoundTrip(r *http.Request) (*http.Response, error) {
	raw, err := ocspRequest(r)
	if err != nil {
		return nil, err
	}
	req, err := ocsp.ParseRequest(raw)
	if err != nil {
		return nil, err
	}
	f.revoke(req.SerialNumber, ocsp.KeyCompromise)
	clone := r.Clone(r.Context())
	clone.Body = io.NopCloser(bytes.NewReader(raw))
	return f.ocspResponder.RoundTrip(clone)
}

// TestResponderThatCallsAllRevokedMakesNoLoop has every certificate replaced for
// a week because its responder says so: each is kept for hours all the same. (F27)
func TestResponderThatCallsAllRevokedMakesNoLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{OCSPURL: ocspURL})
		m := startAlone(t, conf)
		UseResponder(m, everRevoked{&ocspResponder{ca: ca}})
		manage(t, m, "a.example.com")
		time.Sleep(7 * day)
		if n := len(ca.Orders()); n < 5 || n > 1+7*4 {
			t.Errorf("%d orders in a week; want one each six hours at most", n)
		}
	})
}

// unknownSerials answers for serials that it does not know yet as RFC 6960 §2.2
// has it: revoked in 1970, on hold.
type unknownSerials struct{ *ocspResponder }

func (f unknownSerials) RoundTrip(r *http.Request) (*http.Response, error) {
	raw, err := ocspRequest(r)
	if err != nil {
		return nil, err
	}
	req, err := ocsp.ParseRequest(raw)
	if err != nil {
		return nil, err
	}
	issuer, key := f.ca.Intermediate()
	now := time.Now().Truncate(time.Second)
	body, err := ocsp.CreateResponse(issuer, issuer, ocsp.Response{
		Status: ocsp.Revoked, RevocationReason: ocsp.CertificateHold, RevokedAt: time.Unix(0, 0),
		SerialNumber: req.SerialNumber, ThisUpdate: now, NextUpdate: now.Add(7 * day),
	}, key)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/ocsp-response"}},
		Body: io.NopCloser(bytes.NewReader(body)), Request: r,
	}, nil
}

// TestSerialThatAResponderDoesNotKnowIsNotRevoked has a responder lag behind its
// CA for a day. (F27)
func TestSerialThatAResponderDoesNotKnowIsNotRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{OCSPURL: ocspURL})
		var events eventLog
		conf.OnEvent = events.add
		m := startAlone(t, conf)
		UseResponder(m, unknownSerials{&ocspResponder{ca: ca}})
		manage(t, m, "a.example.com")
		time.Sleep(day)
		if s := statusFor(t, m, "a.example.com"); s.Revoked || len(ca.Orders()) != 1 || events.count(EventRevoked) != 0 {
			t.Errorf("%d orders, events %v, Status %+v", len(ca.Orders()), events.kinds(""), s)
		}
	})
}
