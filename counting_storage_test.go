package certwright_test

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/certwright/certwright/storage"
)

// countingStorage counts calls and makes each take a while.
type countingStorage struct {
	*storage.Memory
	latency time.Duration

	mu    sync.Mutex // guards calls
	calls map[string]int
}

func (s *countingStorage) count(call string) {
	s.mu.Lock()
	if s.calls == nil {
		s.calls = map[string]int{}
	}
	s.calls[call]++
	s.mu.Unlock()
	time.Sleep(s.latency) // fake time: it is used in bubbles only
}

// firstTwo returns the first two components of key.
func firstTwo(key string) string {
	parts := strings.SplitN(key, "/", 3)
	return strings.Join(parts[:min(2, len(parts))], "/")
}

// take returns the calls so far and counts anew.
func (s *countingStorage) take() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

func (s *countingStorage) Load(ctx context.Context, key string) ([]byte, error) {
	s.count("load " + firstTwo(key))
	return s.Memory.Load(ctx, key)
}

func (s *countingStorage) Store(ctx context.Context, key string, value []byte) error {
	s.count("store")
	return s.Memory.Store(ctx, key, value)
}

func (s *countingStorage) Delete(ctx context.Context, key string) error {
	s.count("delete")
	return s.Memory.Delete(ctx, key)
}

func (s *countingStorage) List(ctx context.Context, prefix string) ([]string, error) {
	s.count("list " + prefix)
	return s.Memory.List(ctx, prefix)
}
