package certwright_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/storage"
)

// What strangers may cost, whatever their number.
const (
	strangers       = 20_000
	strangerLists   = 4               // lists of a storage at once, when those before do not return
	strangerWorkers = 4 + 16 + 1      // goroutines: lists, loads, and who starts the lists
	strangerWait    = 3 * time.Second // for a storage
)

// strangeStorage has calls that are about challenges take a while, or hang whatever
// their context says, and counts them and all others.
type strangeStorage struct {
	*storage.Memory
	slow  time.Duration
	block chan struct{} // nil: they do not hang

	lists, loads, other, busy, most atomic.Int32
}

func (s *strangeStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if !strings.HasPrefix(prefix, keyChallenges) {
		s.other.Add(1)
		return s.Memory.List(ctx, prefix)
	}
	s.lists.Add(1)
	defer s.busy.Add(-1)
	if n := s.busy.Add(1); n > s.most.Load() {
		s.most.Store(n)
	}
	time.Sleep(s.slow) // in a bubble
	if s.block != nil {
		<-s.block
	}
	return s.Memory.List(ctx, prefix)
}

func (s *strangeStorage) Load(ctx context.Context, key string) ([]byte, error) {
	if strings.HasPrefix(key, keyChallenges) {
		s.loads.Add(1)
	} else {
		s.other.Add(1)
	}
	return s.Memory.Load(ctx, key)
}

// strange makes the i-th request of strangers: validation handshakes for managed
// and other names, tokens that nobody knows, and handshakes for random names.
func strange(t *testing.T, m *Manager, handler http.Handler, i int) {
	name := fmt.Sprintf("n%d.strange.example.org", i)
	if i%8 == 0 {
		name = "good.example.com"
	}
	switch i % 4 {
	case 0, 1:
		h := helloFor(name, "192.0.2.1")
		h.SupportedProtos = []string{alpnProto}
		if cert, _ := m.GetCertificate(h); cert != nil {
			t.Error("a stranger's validation was answered")
		}
	case 2:
		if w := ask(handler, name, fmt.Sprintf("%stoken-%d", wellKnown, i)); w.Code != http.StatusTeapot {
			t.Errorf("a stranger's token was answered: %d", w.Code)
		}
	default:
		if cert, _ := m.GetCertificate(helloFor(name, "192.0.2.1")); cert != nil {
			t.Error("a name that nobody manages is served")
		}
	}
}

// F47, F60: through a whole Manager, while good handshakes go on.
func TestStrangersCostBoundedWork(t *testing.T) {
	if raceEnabled {
		t.Skip("20,000 goroutines at once are too many for the race detector; it is another step of ci/test.sh")
	}
	for _, tt := range []struct {
		name   string
		slow   time.Duration
		hangs  bool
		rounds int
		lists  int32 // in all rounds
	}{
		{"storage that takes 500 ms", 500 * time.Millisecond, false, 2, 2 * 2},
		{"storage that hangs", 0, true, 6, strangerLists},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &strangeStorage{Memory: storage.NewMemory()}
				m := offline(t, newFakeSigner(t), func(c *Config) { c.Storage = s })
				manage(t, m, "good.example.com")
				handler := m.HTTPHandler(teapot)
				if s.slow = tt.slow; tt.hangs {
					s.block = make(chan struct{})
					defer close(s.block) // before the Manager is closed
				}
				synctest.Wait()
				s.other.Store(0)
				goroutines := runtime.NumGoroutine()
				for range tt.rounds {
					floodOnce(t, m, handler, goroutines)
				}
				if n := s.lists.Load(); n > tt.lists {
					t.Errorf("%d lists for %d strangers, at most %d", n, tt.rounds*strangers, tt.lists)
				}
				if n := s.loads.Load(); n > 0 {
					t.Errorf("%d loads of challenges that are not there", n)
				}
				if n := s.other.Load(); n > 2 { // a look at what others have changed
					t.Errorf("%d other calls of the storage", n)
				}
				if n := s.most.Load(); n > strangerLists {
					t.Errorf("%d lists at once", n)
				}
				synctest.Wait()
				if n := runtime.NumGoroutine() - goroutines; n > strangerLists+2 { // the lists, who starts them, and a look at what others have changed
					t.Errorf("%d goroutines are left", n)
				}
			})
		})
	}
}

// floodOnce has all strangers ask at once, and a good client among them.
func floodOnce(t *testing.T, m *Manager, handler http.Handler, goroutines int) {
	t.Helper()
	began := time.Now()
	var alive atomic.Int32
	var wg sync.WaitGroup
	for i := range strangers {
		alive.Add(1)
		wg.Go(func() {
			defer alive.Add(-1)
			strange(t, m, handler, i)
		})
	}
	synctest.Wait()
	if n := runtime.NumGoroutine() - goroutines - int(alive.Load()); n > strangerWorkers {
		t.Errorf("%d goroutines beside those of %d strangers, at most %d", n, alive.Load(), strangerWorkers)
	}
	hello := helloFor("good.example.com", "192.0.2.1")
	served := 0
	good := func() {
		if cert, err := m.GetCertificate(hello); cert == nil {
			t.Errorf("a good handshake among strangers: %v", err)
		}
		served++
	}
	if raceEnabled { // which allocates
		good()
	} else if n := testing.AllocsPerRun(1000, good); n > 0 {
		t.Errorf("%v allocations in a good handshake among strangers", n)
	}
	if took := time.Since(began); took > 0 {
		t.Errorf("%d good handshakes waited for %v", served, took)
	}
	wg.Wait()
	if took := time.Since(began); took > strangerWait {
		t.Errorf("strangers were kept for %v, at most %v", took, strangerWait)
	}
}
