//go:build !linux

package storage

import "context"

// lockWatch waits between two tries for a lock file. No way is used here to hear
// that it has become free.
type lockWatch struct{ pause pause }

func newLockWatch() *lockWatch { return &lockWatch{} }

func (w *lockWatch) hears() bool { return false }

func (w *lockWatch) add(string) {}

func (w *lockWatch) clear() {}

func (w *lockWatch) wait(ctx context.Context) error { return w.pause.wait(ctx) }

func (w *lockWatch) close() error { return nil }
