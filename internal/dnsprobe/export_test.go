package dnsprobe

import "time"

// Bound sets how long a query may take.
func (p *Prober) Bound(f func(network, addr, name string) time.Duration) { p.bound = f }

// Slots sets how many queries may be under way at once.
func (p *Prober) Slots(n int) { p.slots = make(chan struct{}, n) }

var (
	System       = system
	DefaultBound = bound
)
