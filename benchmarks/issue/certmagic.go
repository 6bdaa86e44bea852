package main

import (
	"context"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// theirs is CertMagic with a Config and a Cache of its own.
type theirs struct {
	set    settings
	config *certmagic.Config
	cache  *certmagic.Cache
}

func openCertMagic(s settings) (column, error) {
	certmagic.RateLimitEvents, certmagic.RateLimitEventsWindow = 0, 0 // ten a ten seconds otherwise
	t := &theirs{set: s}
	t.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return t.config, nil },
		Logger:           zap.NewNop(),
	})
	t.config = certmagic.New(t.cache, certmagic.Config{Storage: &memory{values: map[string][]byte{}, locks: map[string]chan struct{}{}}, Logger: zap.NewNop()})
	template := certmagic.ACMEIssuer{
		CA: s.ca.Directory(), Email: "admin@bench.test", Agreed: true, TrustedRoots: s.ca.APIRoots(),
		DisableTLSALPNChallenge: true, ListenHost: host, AltHTTPPort: s.ca.HTTPPort(),
		Logger: zap.NewNop(),
	}
	if s.dns != nil {
		template.DNS01Solver = &certmagic.DNS01Solver{DNSManager: certmagic.DNSManager{DNSProvider: s.dns.provider(), Resolvers: []string{s.dns.at}}}
	}
	t.config.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(t.config, template)}
	return t, nil
}

func (*theirs) enter() error { return nil }
func (*theirs) leave() error { return nil }

func (t *theirs) issue(ctx context.Context, names []string) error {
	return each(ctx, names, t.set.inFlight, func(ctx context.Context, name string) error {
		return t.config.ManageSync(ctx, []string{name})
	})
}

func (t *theirs) close() error {
	t.cache.Stop()
	return nil
}

// memory is a certmagic.Storage in memory.
type memory struct {
	mu     sync.Mutex // guards values, locks
	values map[string][]byte
	locks  map[string]chan struct{}
}

func (m *memory) lock(name string) chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[name] == nil {
		m.locks[name] = make(chan struct{}, 1)
	}
	return m.locks[name]
}

func (m *memory) Lock(ctx context.Context, name string) error {
	select {
	case m.lock(name) <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *memory) Unlock(_ context.Context, name string) error {
	<-m.lock(name)
	return nil
}

func (m *memory) Store(_ context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[key] = value
	return nil
}

func (m *memory) Load(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.values[key]; ok {
		return v, nil
	}
	return nil, fs.ErrNotExist
}

func (m *memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.values, key)
	return nil
}

func (m *memory) Exists(ctx context.Context, key string) bool {
	_, err := m.Load(ctx, key)
	return err == nil
}

func (m *memory) List(_ context.Context, prefix string, _ bool) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []string
	for k := range m.values {
		if strings.HasPrefix(k, prefix+"/") {
			keys = append(keys, k)
		}
	}
	return keys, nil
}

func (m *memory) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	v, err := m.Load(ctx, key)
	return certmagic.KeyInfo{Key: key, Modified: time.Now(), Size: int64(len(v)), IsTerminal: true}, err
}
