package certwright

import "time"

// NewAlone is New for a Manager that nobody shares its storage with: it looks at
// the changes of others once a day, so that a test of a year need not do so a
// million times.
func NewAlone(conf Config) (*Manager, error) { return newManager(conf, 24*time.Hour) }
