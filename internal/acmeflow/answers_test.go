package acmeflow

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/fakeca"
)

// F25, F26: what stands between here and the CA answers with any status, to any
// request. Once it costs nothing but time. For good it is in the error, without
// what may be secret in a URL, and soon.
func TestAnyStatusOfAProxy(t *testing.T) {
	const page = "<html>proxy says no</html>"
	for _, endpoint := range issueEndpoints {
		for _, status := range []int{300, 302, 304, 307, 400, 401, 410, 418, 451, 499, 511, 999} {
			t.Run(fmt.Sprint(endpoint, status), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					rule := fakeca.Rule{
						Endpoint: endpoint, Status: status, Body: []byte(page), NoNonce: true,
						Header: http.Header{"Location": {"?token=secret"}},
					}
					e := newEnv(t, fakeca.Options{PollsProcessing: 1})
					remove := e.ca.On(rule)
					began := time.Now()
					text := e.fail(t, "example.com").Error()
					if !strings.Contains(text, fmt.Sprint("HTTP ", status)) || endpoint != "newNonce" && !strings.Contains(text, page) {
						t.Errorf("error: %s", text)
					}
					if strings.Contains(text+e.log.String(), "secret") {
						t.Errorf("a query is in: %s", text)
					}
					if took := time.Since(began); took > 3*time.Minute {
						t.Errorf("it took %v", took)
					}
					remove()
					rule.N, rule.Run, rule.Header = 1, endpoint != "newOrder", nil
					e.ca.On(rule)
					e.issue(t, "example.com")
					if n := len(e.ca.Certificates()); n != 1 || len(e.ca.Orders()) != 1 {
						t.Errorf("%d certificates, %d orders", n, len(e.ca.Orders()))
					}
				})
			})
		}
	}
}

// F26: a problem is one with status 200 too. In a document of its own it is the
// CA's word.
func TestProblemWithStatus200(t *testing.T) {
	for _, endpoint := range issueEndpoints {
		for kind, body := range map[string]string{
			"application/problem+json": `{"title":"quota of tenant 7","status":403}`,
			"text/html":                `{"type":"urn:ietf:params:acme:error:unauthorized","detail":"quota of tenant 7"}`,
			"application/json":         `{"type":"urn:ietf:params:acme:error:tenant","detail":"quota of tenant 7","status":403}`,
		} {
			if endpoint == "newNonce" {
				continue // a reply to HEAD has no body
			}
			t.Run(endpoint+" "+kind, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					e := newEnv(t, fakeca.Options{PollsProcessing: 1})
					e.ca.On(fakeca.Rule{Endpoint: endpoint, Status: 200, Body: []byte(body), ContentType: kind})
					began := time.Now()
					err := e.fail(t, "example.com")
					if !strings.Contains(err.Error(), "quota of tenant 7") || err.Problem == nil {
						t.Errorf("error: %v", err)
					}
					if took := time.Since(began); took > 10*time.Second {
						t.Errorf("it took %v", took)
					}
					if n := e.ca.Count("newOrder"); n > 1 {
						t.Errorf("%d orders", n)
					}
				})
			})
		}
	}
	bubble(t, func(t *testing.T) { // a nonce that is refused so is replaced all the same
		e := newEnv(t, fakeca.Options{})
		e.ca.On(fakeca.Rule{Endpoint: "newOrder", N: 1, Status: 200, Body: []byte(`{"type":"urn:ietf:params:acme:error:badNonce"}`)})
		e.issue(t, "example.com")
	})
}

// F25: a proxy's empty answer is none.
func TestEmptyAnswers(t *testing.T) {
	for _, endpoint := range []string{"challenge", "finalize"} {
		for _, body := range []string{"", "{}", `{"message":"try again"}`} {
			t.Run(endpoint+" "+body, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					e := newEnv(t, fakeca.Options{})
					e.ca.On(fakeca.Rule{Endpoint: endpoint, N: 1, Status: 200, Body: []byte(body), ContentType: "application/json"})
					began := time.Now()
					e.issue(t, "example.com")
					if took := time.Since(began); took > 10*time.Second {
						t.Errorf("it took %v", took)
					}
					e.wantCount(t, "newOrder", 1)
				})
			})
		}
	}
}

// F20, F26: a CA that refuses to look at a challenge is asked again, its words are
// told, and another type is tried.
func TestChallengeRefused(t *testing.T) {
	for name, rule := range map[string]fakeca.Rule{
		"by the CA":  {Problem: fakeca.NewProblem("malformed", 400, "quota of tenant 7")},
		"by a proxy": {Status: 400, Body: []byte("<html>quota of tenant 7</html>")},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{})
				rule.Endpoint = "challenge"
				rule.When = func(*fakeca.Request) bool { types := e.solver.types(); return types[len(types)-1] == "http-01" }
				remove := e.ca.On(rule)
				e.issue(t, "example.com")
				e.wantCount(t, "newOrder", 1)
				if !strings.Contains(e.log.String(), "quota of tenant 7") {
					t.Error("the words were not told")
				}
				remove()
				rule.When = nil
				e.ca.On(rule)
				e.newKey(t)
				began := time.Now()
				if err := e.fail(t, "other.example.com"); !strings.Contains(err.Error(), "quota of tenant 7") {
					t.Errorf("error: %v", err)
				}
				if took := time.Since(began); took > 4*time.Minute {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// cut is a Transport whose replies to a path end too early.
type cut struct {
	base  http.RoundTripper
	path  string
	times int // how often; each time is the first of what is cut
	as    func(resp *http.Response, body []byte)
}

func (c *cut) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.base.RoundTrip(req)
	if err != nil || !strings.Contains(req.URL.Path, c.path) || c.times == 0 {
		return resp, err
	}
	c.times--
	body, err := io.ReadAll(resp.Body)
	c.as(resp, body)
	return resp, err
}

type broken struct{ io.Reader }

func (f broken) Read(b []byte) (int, error) {
	n, err := f.Reader.Read(b)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// F26, F31: a reply that is cut short is asked for again, and what there is of an
// error's text is told with its status.
func TestRepliesCutShort(t *testing.T) {
	short := func(resp *http.Response, body []byte) {
		resp.Body = io.NopCloser(broken{bytes.NewReader(body[:len(body)/2])})
	}
	refused := func(resp *http.Response, _ []byte) {
		resp.StatusCode = http.StatusForbidden
		resp.Body = io.NopCloser(broken{strings.NewReader("<html>proxy says no</html>")})
	}
	giant := func(resp *http.Response, _ []byte) {
		resp.StatusCode = http.StatusForbidden
		resp.Body = io.NopCloser(strings.NewReader("<html>proxy says no</html>" + strings.Repeat(" ", maxBody)))
	}
	with := func(e *env, c cut) {
		base := e.ca.Client().Transport
		c.base = base
		e.restart(func(o *Options) { o.HTTPClient = &http.Client{Transport: &c} })
	}
	for _, path := range []string{"directory", "new-account", "new-order", "authz", "challenge", "finalize", "order/", "cert"} {
		t.Run(path, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{PollsProcessing: 1})
				with(e, cut{path: path, times: 1, as: short})
				e.issue(t, "example.com")
				if n := len(e.ca.Certificates()); n != 1 {
					t.Errorf("%d certificates", n)
				}
			})
			if path == "finalize" {
				return // the order tells what became of it
			}
			for name, as := range map[string]func(*http.Response, []byte){"refused": refused, "giant": giant} {
				bubble(t, func(t *testing.T) {
					e := newEnv(t, fakeca.Options{PollsProcessing: 1})
					with(e, cut{path: path, times: -1, as: as})
					if text := e.fail(t, "example.com").Error(); !strings.Contains(text, "HTTP 403") || !strings.Contains(text, "proxy says no") || len(text) > 4096 {
						t.Errorf("%s: %s", name, text)
					}
				})
			}
		})
	}
}

// F31: replies that are packed, as a proxy may do it, or begin with byte order
// marks wherever files were put together.
func TestPackedAndMarkedReplies(t *testing.T) {
	e := netEnv(t, fakeca.Options{})
	pack := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") || r.Method == http.MethodHead {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			next.ServeHTTP(packed{w, z}, r)
			_ = z.Close() // to a client that is there
		})
	}
	e.server.Config.Handler = pack(e.ca)
	e.issue(t, "example.com")

	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		mark := cut{base: e.ca.Client().Transport, times: -1, as: func(resp *http.Response, body []byte) {
			body = bytes.ReplaceAll(body, []byte("-----BEGIN"), []byte("\ufeff-----BEGIN"))
			resp.Body = io.NopCloser(bytes.NewReader(append([]byte("\ufeff"), body...)))
		}}
		e.restart(func(o *Options) { o.HTTPClient = &http.Client{Transport: &mark} })
		e.issue(t, "example.com")
	})
}

// F26, F31: what a reply is, its body says and not its media type, nor members of
// other kinds than they should have.
func TestRepliesOfAnyMediaType(t *testing.T) {
	for _, kind := range []string{"", "text/html", problemKind, "application/octet-stream", "Application/JSON; charset", ";;"} {
		t.Run(kind, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				e := newEnv(t, fakeca.Options{PollsProcessing: 1})
				e.ca.On(fakeca.Rule{Header: http.Header{"Content-Type": {kind}}, Mutate: func(_ *fakeca.Request, m map[string]any) {
					m["detail"], m["title"], m["instance"], m["subproblems"] = 7, []string{"x"}, nil, "x"
				}})
				e.issue(t, "example.com", "*.example.com")
			})
		})
	}
}

type packed struct {
	http.ResponseWriter
	z *gzip.Writer
}

func (p packed) Write(b []byte) (int, error) { return p.z.Write(b) }

// What is kept of a problem is bounded, however large the document is and however
// deep.
func TestLargeProblems(t *testing.T) {
	long := strings.Repeat("x", maxBody/2)
	deep := strings.Repeat(`{"subproblems":[`, 4000) + strings.Repeat(`]}`, 4000)
	for name, body := range map[string]string{
		"long":  `{"type":"urn:ietf:params:acme:error:malformed","detail":"` + long + `","instance":"/` + long[:1000] + `"}`,
		"many":  `{"type":"urn:ietf:params:acme:error:malformed","subproblems":[` + strings.Repeat(`{"detail":"no"},`, 50_000) + `{}]}`,
		"deep":  deep,
		"names": `{"type":"` + long + `","subproblems":["` + long[:1000] + `"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			p := parseProblem(400, problemKind, []byte(body))
			size := len(p.Type) + len(p.Title) + len(p.Detail) + len(p.Instance)
			for _, s := range p.Subproblems {
				size += len(s.Detail) + 100*len(s.Subproblems)
			}
			if size > 8*maxErrorText || len(p.Subproblems) > 100 || len(p.Error()) > 8*maxErrorText {
				t.Errorf("%d bytes kept, %d subproblems, a text of %d bytes", size, len(p.Subproblems), len(p.Error()))
			}
		})
	}
}

// F32, F53: an authorization that an order names more than once is one.
func TestAuthorizationsNamedTwice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{})
		e.ca.On(fakeca.Rule{Endpoint: "newOrder", Mutate: func(_ *fakeca.Request, m map[string]any) {
			list := m["authorizations"].([]any)
			m["authorizations"] = slices.Concat(list, list, list)
		}})
		e.issue(t, "a.example.com", "b.example.com")
		e.wantCount(t, "challenge", 2)
	})
	bubble(t, func(t *testing.T) { // and one without any is ready
		e := newEnv(t, fakeca.Options{AuthzReuse: true})
		e.issue(t, "a.example.com")
		e.ca.On(fakeca.Rule{Endpoint: "newOrder", Mutate: func(_ *fakeca.Request, m map[string]any) { m["authorizations"] = []any{} }})
		e.newKey(t)
		e.issue(t, "a.example.com")
		e.wantCount(t, "challenge", 1)
	})
}

// F31: the password of a proxy is no part of an error.
func TestProxyThatIsNoURL(t *testing.T) {
	base := http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = base })
	http.DefaultTransport = &http.Transport{Proxy: func(*http.Request) (*url.URL, error) {
		return nil, errors.New(`invalid proxy address "http://me:secret%@proxy"`) // as net/http has it
	}}
	e := newEnv(t, fakeca.Options{})
	e.restart(func(o *Options) { o.HTTPClient = nil })
	if text := e.fail(t, "example.com").Error(); strings.Contains(text, "secret") || !strings.Contains(text, "HTTPS_PROXY") {
		t.Errorf("error: %s", text)
	}
}

// F33: an order that was seen last at a time that no clock explains is not gone on
// with for ever.
func TestOrderSeenInTheFuture(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newEnv(t, fakeca.Options{PollsProcessing: 1 << 30})
		year := func(d time.Duration) func() {
			return e.ca.On(fakeca.Rule{Header: http.Header{"Date": {time.Now().Add(d).UTC().Format(http.TimeFormat)}}, Mutate: func(_ *fakeca.Request, m map[string]any) {
				delete(m, "expires")
			}})
		}
		attempt := func() *Error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := e.client.Issue(ctx, e.request(t, "example.com"))
			return asError(err)
		}
		remove := year(365 * 24 * time.Hour)
		attempt()
		remove()
		year(0)
		if err := attempt(); err == nil || !err.Gone {
			t.Errorf("error: %v", err)
		}
	})
}
