package fakeca

import (
	"crypto/rand"
	"sync"
	"time"
)

// maxNonces bounds the memory of a long run; the oldest go first.
const maxNonces = 20_000

// nonces are the replay nonces that the CA would accept (RFC 8555 section 6.5).
type nonces struct {
	lifetime time.Duration // zero: they do not age

	mu   sync.Mutex // guards live and made
	live map[string]time.Time
	made []string // in the order they were made, used ones included
}

func (n *nonces) issue() string {
	s := rand.Text()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.live == nil {
		n.live = make(map[string]time.Time)
	}
	n.live[s] = time.Now()
	n.made = append(n.made, s)
	if len(n.made) > 2*maxNonces {
		for _, old := range n.made[:maxNonces] {
			delete(n.live, old)
		}
		n.made = append([]string(nil), n.made[maxNonces:]...)
	}
	return s
}

// known reports whether use would accept s now.
func (n *nonces) known(s string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.knownLocked(s)
}

func (n *nonces) knownLocked(s string) bool {
	made, ok := n.live[s]
	return ok && (n.lifetime <= 0 || time.Since(made) <= n.lifetime)
}

// use takes s out and reports whether it was good.
func (n *nonces) use(s string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	ok := n.knownLocked(s)
	delete(n.live, s)
	return ok
}

func (n *nonces) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.live, n.made = nil, nil
}
