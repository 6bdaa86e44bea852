package certwright

import "time"

// NewAlone is New for a Manager that nobody shares its storage with: it looks at
// the changes of others once a day, so that a test of a year need not do so a
// million times.
func NewAlone(conf Config) (*Manager, error) { return newManager(conf, 24*time.Hour) }

// SawExpired has m believe that it told of a certificate's expiry.
func SawExpired(m *Manager, name string) {
	for _, c := range m.managedFor(name) {
		m.change(c, func(*news) { c.know |= isExpired })
	}
}
