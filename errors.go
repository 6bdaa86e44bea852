package certwright

import "errors"

// Errors that callers branch on, with errors.Is.
var (
	// ErrNoCertificate means that no certificate is there for the name a
	// client asked for.
	ErrNoCertificate = errors.New("certwright: no certificate")

	// ErrNotManaged means that the name is not managed by this Manager.
	ErrNotManaged = errors.New("certwright: name is not managed")

	// ErrClosed means that the Manager was closed.
	ErrClosed = errors.New("certwright: manager is closed")

	// ErrLeaseLost means that a lease ended before it was unlocked.
	ErrLeaseLost = errors.New("certwright: lease lost")
)
