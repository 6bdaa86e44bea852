package cloudflare

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/certwright/certwright/internal/backoff"
)

const (
	maxAttempts = 4
	maxWait     = time.Minute // for one more attempt
	maxBody     = 1 << 20
)

// Codes of Cloudflare's errors.
const (
	codeHeaders  = 6003  // such as no token at all
	codeNoRecord = 81044 // there is none to be deleted
)

// Do sends a request of the module's, again where that does no harm. Every answer
// that is not a success is an error.
func (c *call) Do(req *http.Request) (*http.Response, error) {
	body, err := c.answer(req)
	c.err = err
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(body)), Request: req}, nil
}

func (c *call) answer(req *http.Request) ([]byte, error) {
	if !finds(req) {
		body, err := c.retry(req)
		if e, ok := errors.AsType[*replyError](err); ok && e.status < 500 {
			c.p.keepZone(c.zone, nil) // it may be another one of that name by now
			if req.Method == http.MethodDelete && slices.Contains(e.codes, codeNoRecord) {
				return []byte(`{"success":true,"result":{}}`), nil
			}
		}
		return body, err
	}
	zone := c.p.keptZone(c.zone)
	if zone == nil {
		body, err := c.retry(req)
		if err == nil {
			zone, err = c.pick(body)
		}
		if err != nil {
			return nil, fmt.Errorf("finding the zone: %w", err)
		}
		c.p.keepZone(c.zone, zone)
	}
	return fmt.Appendf(nil, `{"success":true,"result":[%s]}`, zone), nil
}

// finds reports whether a request looks for a zone.
func finds(req *http.Request) bool {
	return req.Method == http.MethodGet && strings.HasSuffix(req.URL.Path, "/zones")
}

// pick returns the one zone of that name. Where another account has it too, as
// after a move, it is the active one.
func (c *call) pick(body []byte) (json.RawMessage, error) {
	var reply struct{ Result []json.RawMessage }
	if err := json.Unmarshal(body, &reply); err != nil {
		return nil, err
	}
	var all, active []json.RawMessage
	for _, raw := range reply.Result {
		var zone struct{ ID, Name, Status string }
		if err := json.Unmarshal(raw, &zone); err != nil {
			return nil, err
		}
		if zone.ID == "" || !strings.EqualFold(zone.Name, c.zone) {
			continue
		}
		if all = append(all, raw); zone.Status == "active" {
			active = append(active, raw)
		}
	}
	switch {
	case len(active) == 1:
		return active[0], nil
	case len(all) == 1:
		return all[0], nil
	case len(all) > 1:
		return nil, fmt.Errorf("there are %d zones %q for this token (%s); let its zone resources include one of them", len(all), c.zone, c.p.finder())
	}
	return nil, fmt.Errorf("there is no zone %q for this token (%s); see whether the zone is in the account, and among the token's zone resources",
		c.zone, c.p.finder())
}

// finder names the token that looks for zones.
func (p *Provider) finder() string {
	if p.conf.ZoneToken != "" {
		return "Config.ZoneToken"
	}
	return "Config.APIToken"
}

func (p *Provider) keptZone(name string) json.RawMessage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.zones[name]
}

// keepZone keeps what is known of a zone, or forgets it.
func (p *Provider) keepZone(name string, zone json.RawMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if zone == nil {
		delete(p.zones, name)
		return
	}
	p.zones[name] = zone
}

// retry returns the body of a successful answer.
func (c *call) retry(req *http.Request) ([]byte, error) {
	ctx := req.Context()
	for attempt := 1; ; attempt++ {
		body, err := c.send(req)
		if err == nil || attempt == maxAttempts || !repeatable(req, err) || ctx.Err() != nil {
			return body, unsure(req, err)
		}
		wait := backoff.Policy{First: time.Second, Max: 8 * time.Second, Jitter: 0.5}.Delay(attempt, rand.Float64())
		if e, ok := errors.AsType[*replyError](err); ok && e.after > 0 {
			wait = e.after
		}
		if wait > maxWait || endsWithin(ctx, wait) {
			return nil, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w; before that: %w", context.Cause(ctx), err)
		}
		if req.GetBody != nil {
			if req.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// endsWithin reports whether ctx is over before d has passed.
func endsWithin(ctx context.Context, d time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) <= d
}

// repeatable reports whether a request that failed may be sent once more: it
// changes nothing, can be repeated, or was not carried out for sure.
func repeatable(req *http.Request, err error) bool {
	e, replied := errors.AsType[*replyError](err)
	switch {
	case replied && (e.status == http.StatusTooManyRequests || e.status == http.StatusServiceUnavailable):
		return true
	case req.Method == http.MethodPost:
		op, ok := errors.AsType[*net.OpError](err)
		return !replied && ok && op.Op == "dial"
	}
	return !replied || e.status >= 500
}

// unsure adds to the error of an addition that it may have been carried out.
func unsure(req *http.Request, err error) error {
	if err == nil || req.Method != http.MethodPost || repeatable(req, err) {
		return err
	}
	if e, ok := errors.AsType[*replyError](err); ok && e.status < 500 {
		return err
	}
	return fmt.Errorf("the record may have been added all the same: %w", err)
}

// send sends a request once.
func (c *call) send(req *http.Request) ([]byte, error) {
	resp, err := c.p.conf.HTTPClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("reading the reply (HTTP %d): %w", resp.StatusCode, err)
	}
	var reply struct {
		Success bool
		Errors  []apiError
	}
	parsed := json.Unmarshal(body, &reply)
	if len(body) <= maxBody && parsed == nil && reply.Success && len(reply.Errors) == 0 && resp.StatusCode < 300 {
		return body, nil
	}
	e := &replyError{status: resp.StatusCode, hint: c.hint(req, resp.StatusCode, reply.Errors)}
	e.after, _ = backoff.ParseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
	for _, one := range reply.Errors {
		e.codes = append(e.codes, one.Code)
		e.text += cmp.Or(one.text(), "no text") + ", "
	}
	switch {
	case len(body) > maxBody:
		e.text = "the reply is larger than 1 MiB"
	case e.text == "":
		e.text = firstOf(c.p.withoutTokens(string(body)))
	}
	e.text = strings.TrimSuffix(c.p.withoutTokens(e.text), ", ")
	return nil, e
}

// hint says what to do about a refusal.
func (c *call) hint(req *http.Request, status int, errs []apiError) string {
	token, right := "Config.APIToken", "Zone:DNS:Edit"
	if finds(req) {
		token, right = c.p.finder(), "Zone:Zone:Read"
	}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		text := fmt.Sprintf("the token %s needs the permission %s for this zone, and must be neither expired nor bound to other addresses", token, right)
		if c.p.conf.ZoneToken == "" {
			text += " (without a Config.ZoneToken it needs Zone:Zone:Read and Zone:DNS:Edit)"
		}
		return text
	case slices.ContainsFunc(errs, func(e apiError) bool { return e.Code == codeHeaders }):
		return fmt.Sprintf("is %s an API token? The global API key is none", token)
	}
	return ""
}

// withoutTokens is a text of Cloudflare's, or of somebody between, who may say again
// what was sent.
func (p *Provider) withoutTokens(s string) string {
	for _, token := range []string{p.conf.APIToken, p.conf.ZoneToken} {
		if token != "" {
			s = strings.ReplaceAll(s, token, "[token]")
		}
	}
	return s
}

// firstOf is the beginning of a reply that is not Cloudflare's JSON.
func firstOf(body string) string {
	const most = 200
	text := strings.Join(strings.Fields(strings.ToValidUTF8(body, "?")), " ")
	switch {
	case text == "":
		return "the reply is empty"
	case len(text) > most:
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return fmt.Sprintf("%q", text)
}

type apiError struct {
	Code    int
	Message string
	Chain   []struct {
		Code    int
		Message string
	} `json:"error_chain"`
}

func (e apiError) text() string {
	s := fmt.Sprintf("%s (code %d)", e.Message, e.Code)
	for _, cause := range e.Chain {
		s += fmt.Sprintf(": %s (code %d)", cause.Message, cause.Code)
	}
	return s
}

// replyError is an answer that is not a success.
type replyError struct {
	status int
	codes  []int
	text   string // Cloudflare's, without tokens
	hint   string // what to do about it; often empty
	after  time.Duration
}

func (e *replyError) Error() string {
	s := fmt.Sprintf("HTTP %d: %s", e.status, e.text)
	if e.after > 0 {
		s += fmt.Sprintf("; not to be asked again for %v", e.after)
	}
	if e.hint != "" {
		s += "; " + e.hint
	}
	return s
}

// RetryAfter is how long Cloudflare asked not to come back; 0: it said nothing.
func (e *replyError) RetryAfter() time.Duration { return e.after }
