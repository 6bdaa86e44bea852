package dnsprovider

type Prober = prober

// Probe has the Solver look things up with p.
func (s *Solver) Probe(p Prober) { s.probe = p }

// Presents is how many challenges are remembered.
func (s *Solver) Presents() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.presents)
}
