package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// std is autocert behind servers on both validation ports.
type std struct {
	set         settings
	m           *autocert.Manager
	plain, over *server
}

func openAutocert(s settings) (column, error) {
	return &std{set: s, m: &autocert.Manager{
		Prompt: autocert.AcceptTOS,
		Cache:  &autocertMemory{values: map[string][]byte{}},
		Client: &acme.Client{DirectoryURL: s.ca.Directory(), HTTPClient: s.ca.Client()},
	}}, nil
}

func (s *std) enter() (err error) {
	if s.plain, err = serve(s.set.ca.HTTPPort(), s.m.HTTPHandler(nil), nil); err != nil {
		return err
	}
	s.over, err = serve(s.set.ca.TLSPort(), http.NotFoundHandler(), func(ln net.Listener) net.Listener {
		return tls.NewListener(ln, s.m.TLSConfig())
	})
	return err
}

func (s *std) leave() error { return errors.Join(s.plain.close(), s.over.close()) }

func (s *std) issue(ctx context.Context, names []string) error {
	return each(ctx, names, s.set.inFlight, func(_ context.Context, name string) error {
		_, err := s.m.GetCertificate(&tls.ClientHelloInfo{
			ServerName:       name,
			CipherSuites:     []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
			SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
			SupportedCurves:  []tls.CurveID{tls.CurveP256},
		})
		return err
	})
}

func (*std) close() error { return nil }

// autocertMemory is an autocert.Cache in memory.
type autocertMemory struct {
	mu     sync.Mutex // guards values
	values map[string][]byte
}

func (c *autocertMemory) Get(_ context.Context, key string) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.values[key]; ok {
		return v, nil
	}
	return nil, autocert.ErrCacheMiss
}

func (c *autocertMemory) Put(_ context.Context, key string, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.values[key] = data
	return nil
}

func (c *autocertMemory) Delete(_ context.Context, key string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.values, key)
	return nil
}
