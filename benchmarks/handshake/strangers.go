//go:build unix

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/certwright/certwright/benchmarks/corpus"
	"github.com/certwright/certwright/benchmarks/harness"
	"github.com/certwright/certwright/benchmarks/peers"
)

// strangers ask for validations that nobody has begun, half of them by a handshake
// and half by a request; each comes again every three seconds.
const (
	strangers = 20_000
	again     = 3 * time.Second
)

// strangeStorage takes its time to list what other instances have presented.
type strangeStorage struct {
	corpus.CertwrightStorage
	slow func()
}

func (s strangeStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if strings.HasPrefix(prefix, "v1/challenges") {
		s.slow()
	}
	return s.CertwrightStorage.List(ctx, prefix)
}

// nowhere is where answers go to strangers: what they do with them is no matter.
type nowhere struct{ http.ResponseWriter }

// among measures good handshakes, one after another, without strangers and with
// them, and how many threads there are more for that.
func among(kind string, c *corpus.Corpus, handshakes int) error {
	slow := func() { time.Sleep(500 * time.Millisecond) }
	if kind == "hang" {
		var pipe [2]int
		if err := syscall.Pipe(pipe[:]); err != nil {
			return err
		}
		slow = func() { _, _ = syscall.Read(pipe[0], make([]byte, 1)) } // nobody writes: it keeps its thread
	}
	names := c.Names()[:hotNames]
	peer, err := peers.NewCertwright(strangeStorage{corpus.NewCertwrightStorage(c), slow})
	if err != nil {
		return err
	}
	if err := peer.Load(context.Background(), names); err != nil {
		return err
	}
	peer.Settle()
	s, err := serve(&tls.Config{GetCertificate: peer.GetCertificate})
	if err != nil {
		return err
	}
	defer s.close()
	row := func(column string) error {
		took := make([]float64, handshakes)
		for i := range took {
			begin := time.Now()
			if _, err := s.handshake(names[i%len(names)]); err != nil {
				return err
			}
			took[i] = harness.Milliseconds(time.Since(begin))
		}
		harness.Row("strangers-"+kind+"-p99", column, harness.Percentile(slices.Clone(took), 0.99), "ms")
		return nil
	}
	if err := row(harness.Limit); err != nil {
		return err
	}
	threads := pprof.Lookup("threadcreate").Count()
	if err := come(peer); err != nil {
		return err
	}
	if err := row(harness.Certwright); err != nil {
		return err
	}
	harness.Row("strangers-"+kind+"-threads", harness.Certwright, float64(pprof.Lookup("threadcreate").Count()-threads), "threads")
	return nil
}

// come has strangers ask until the process ends. It returns when all have asked.
func come(peer *peers.Certwright) error {
	genuine, _, err := harness.Hello()
	if err != nil {
		return err
	}
	handler := peer.HTTPHandler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for i := range strangers {
		go func() {
			hello := *genuine
			hello.ServerName, hello.SupportedProtos = fmt.Sprintf("n%d.stranger.example", i), []string{"acme-tls/1"}
			r := httptest.NewRequest(http.MethodGet, "/.well-known/acme-challenge/"+strconv.Itoa(i), nil)
			for next := time.Now().Add(again * time.Duration(i) / strangers); ; next = next.Add(again) {
				time.Sleep(time.Until(next))
				if i%2 == 0 {
					_, _ = peer.GetCertificate(&hello) // there is none
				} else {
					handler.ServeHTTP(nowhere{}, r)
				}
			}
		}()
	}
	time.Sleep(2 * again)
	return nil
}
