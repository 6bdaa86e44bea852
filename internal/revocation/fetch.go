package revocation

import (
	"bytes"
	"context"
	"crypto/fips140"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/certwright/certwright/internal/backoff"
	"github.com/certwright/certwright/internal/certpem"
)

const (
	// maxResponse is the size in bytes at which a response is refused. Real
	// ones have 0.5 to 3 KiB.
	maxResponse = 64 << 10
	// maxAttempt is the longest time that one responder gets.
	maxAttempt = 15 * time.Second
)

// ErrNoResponder means that a leaf names no responder that may be asked. With
// most CAs that is normal: it is no reason to warn or to try again.
var ErrNoResponder = errors.New("revocation: certificate names no OCSP responder")

// ResponderError is an answer without a verdict: an OCSPResponseStatus other than
// successful (RFC 6960 §4.2.1), or an HTTP status other than 200.
type ResponderError struct {
	// Status is the OCSPResponseStatus, or 0 when HTTPStatus says what happened.
	Status ocsp.ResponseStatus
	// HTTPStatus is the HTTP status code, or 0 when Status says what happened.
	HTTPStatus int
	// RetryAfter is how long the responder asks to be left alone (RFC 9110
	// §10.2.3), seven days at most; 0 when it does not say.
	RetryAfter time.Duration
}

// Error says what was answered. Whoever wraps it says by whom.
func (e *ResponderError) Error() string {
	if e.HTTPStatus != 0 {
		return fmt.Sprintf("responder answered HTTP status %d", e.HTTPStatus)
	}
	return fmt.Sprintf("responder answered %q", e.Status)
}

// Fetcher asks OCSP responders. It is safe for concurrent use.
type Fetcher struct {
	Client *http.Client // sends the requests; required
}

// Fetch asks the responders of leaf in turn, in the leaf's order, and returns the
// first verified answer that is Good or Revoked; an Unknown one only if no other
// responder knows more. When all fail it returns one error a responder, joined:
// *ResponderError for answers without a verdict. A leaf with no responder is
// ErrNoResponder, and nothing is sent.
//
// Fetch ends with ctx. A responder that hangs does not use up the time of those
// after it: each gets an equal share of what is left, and 15 s at most.
func (f Fetcher) Fetch(ctx context.Context, leaf, issuer *x509.Certificate) (*Staple, error) {
	urls := certpem.Responders(leaf)
	if len(urls) == 0 {
		return nil, ErrNoResponder
	}
	if err := checkIssued(leaf, issuer); err != nil {
		return nil, fmt.Errorf("making OCSP request: %w", err)
	}
	// SHA-1 here only names the issuer; it is what every responder knows.
	var der []byte
	var err error
	fips140.WithoutEnforcement(func() { der, err = ocsp.CreateRequest(leaf, issuer, nil) })
	if err != nil {
		return nil, fmt.Errorf("making OCSP request: %w", err)
	}
	q := question{der: der, leaf: leaf, issuer: issuer}
	var unknown *Staple
	var errs []error
	for i, u := range urls {
		s, err := f.ask(ctx, u, q, len(urls)-i)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("fetching OCSP response from %q: %w", u, err))
		case s.Status != Unknown:
			return s, nil
		case unknown == nil:
			unknown = s
		}
		if ctx.Err() != nil {
			break
		}
	}
	if unknown != nil {
		return unknown, nil
	}
	return nil, errors.Join(errs...)
}

// question is what every responder is asked.
type question struct {
	der          []byte // OCSPRequest
	leaf, issuer *x509.Certificate
}

// ask puts q to one responder, left being how many are still to be asked, this
// one counted.
func (f Fetcher) ask(ctx context.Context, responder string, q question, left int) (*Staple, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime(ctx, left))
	defer cancel()
	body, header, err := f.post(ctx, responder, q.der)
	var s *Staple
	if err == nil {
		s, err = Parse(body, q.leaf, q.issuer, time.Now())
	}
	var re *ResponderError
	if errors.As(err, &re) {
		re.RetryAfter, _ = backoff.ParseRetryAfter(header.Get("Retry-After"), time.Now())
		return nil, err
	}
	if err != nil {
		// A proxy's or a portal's page is told from a broken response by its type.
		if t := header.Get("Content-Type"); t != "" && !strings.HasPrefix(t, "application/ocsp-response") {
			return nil, fmt.Errorf("content type %q: %w", t, err)
		}
		return nil, err
	}
	s.Responder = responder
	return s, nil
}

// attemptTime returns the time that the first of left responders gets.
func attemptTime(ctx context.Context, left int) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return min(time.Until(end)/time.Duration(left), maxAttempt)
	}
	return maxAttempt
}

// post sends an OCSPRequest (RFC 6960 appendix A.1) and returns the body and the
// header of the answer. The header is nil when there was no answer.
func (f Fetcher) post(ctx context.Context, responder string, der []byte) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, responder, bytes.NewReader(der))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	req.Header.Set("Accept", "application/ocsp-response")
	resp, err := f.Client.Do(req)
	if err != nil {
		// Fetch names the URL already.
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, resp.Header, &ResponderError{HTTPStatus: resp.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	if err != nil {
		return nil, resp.Header, fmt.Errorf("reading answer: %w", err)
	}
	if len(body) > maxResponse {
		return nil, resp.Header, fmt.Errorf("answer is larger than %d bytes", maxResponse)
	}
	return body, resp.Header, nil
}
