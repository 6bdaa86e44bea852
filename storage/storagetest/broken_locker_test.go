package storagetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certwright/certwright/storage"
)

func TestSoundLockerIsNotCaught(t *testing.T) {
	b := spoiltLease(func(*fakeLease, context.Context) {})
	b.Residue = func(testing.TB, storage.Storage) int { return 0 }
	for _, c := range lockerChecks() {
		switch c.name {
		case "Held", "Instances", "ExclusionOfProcesses", "Killed", "Stopped":
			continue
		}
		if failures := record(t, lockerChecks(), c.name, b); len(failures) > 0 {
			t.Errorf("the check %q finds fault with a sound locker:\n%s", c.name, strings.Join(failures, "\n"))
		}
	}
}

func TestBrokenLeaseIsCaught(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, check, about string
		spoil              func(l *fakeLease, ctx context.Context)
	}{
		{"the context never ends", "LeaseContext", "does not end after Unlock", func(l *fakeLease, ctx context.Context) {
			l.ctx = ctx
		}},
		{"the context loses its values", "LeaseContext", "has the value", func(l *fakeLease, _ context.Context) {
			l.ctx = context.Background()
		}},
		{"unlock looks at its context", "UnlockEndedContext", "Unlock with an ended context", func(l *fakeLease, _ context.Context) {
			l.unlock = func(ctx context.Context) error {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return l.Lease.Unlock(ctx)
			}
		}},
		{"unlock leaks with an ended context", "UnlockEndedContext", "Lock(", func(l *fakeLease, _ context.Context) {
			l.unlock = func(ctx context.Context) error {
				if ctx.Err() != nil {
					return nil
				}
				return l.Lease.Unlock(ctx)
			}
		}},
		{"the loss is not told", "LostLease", "does not end", func(l *fakeLease, _ context.Context) {
			l.ctx = context.WithoutCancel(l.Lease.Context())
		}},
		{"unlock of a lost lease is fine", "LostLease", "ErrLeaseLost", func(l *fakeLease, _ context.Context) {
			l.unlock = func(ctx context.Context) error { _ = l.Lease.Unlock(ctx); return nil }
		}},
		{"a late store goes through", "LateStore", "Store on the", func(l *fakeLease, ctx context.Context) {
			l.ctx = ctx
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			wantCaught(t, lockerChecks(), fault{tt.name, tt.check, tt.about, spoiltLease(tt.spoil)})
		})
	}
}

// A storage that fences stores alone is caught (F44).
func TestLateDeleteIsCaught(t *testing.T) {
	b := spoiltLease(func(*fakeLease, context.Context) {})
	open := b.Open
	b.Open = func(tb testing.TB) storage.Storage {
		f := open(tb).(*fakeStorage)
		f.delete = func(_ context.Context, key string) error { return f.Memory.Delete(context.Background(), key) }
		return f
	}
	wantCaught(t, lockerChecks(), fault{check: "LateStore", about: "Delete on the", backend: b})
}

func TestBrokenLockerIsCaught(t *testing.T) {
	t.Parallel()
	wantAllCaught(t, lockerChecks(), holdFaults())
	wantAllCaught(t, lockerChecks(), waitFaults())
}

// holdFaults are about who holds a lock.
func holdFaults() []fault {
	return []fault{
		{"nothing is locked", "Exclusion", "at once", spoilt(func(f *fakeStorage, m *storage.Memory) {
			f.lock = func(ctx context.Context, _ string) (storage.Lease, error) {
				return storage.NewMemory().Lock(ctx, "own")
			}
		})},
		{"neither lease nor error", "LeaseContext", "", spoilt(func(f *fakeStorage, m *storage.Memory) {
			f.lock = func(context.Context, string) (storage.Lease, error) { return nil, errors.New("taken") }
		})},
		{"the holder gets it again", "NotReentrant", "<nil>", spoilt(func(f *fakeStorage, m *storage.Memory) {
			type held struct{}
			f.lock = func(ctx context.Context, name string) (storage.Lease, error) {
				if l, ok := ctx.Value(held{}).(storage.Lease); ok {
					return l, nil
				}
				l, err := m.Lock(ctx, name)
				if err != nil {
					return nil, err
				}
				return &fakeLease{Lease: l, ctx: context.WithValue(l.Context(), held{}, l)}, nil
			}
		})},
		{"unlock frees whoever holds", "UnlockTwice", "while another holds it", spoilt(freeAnyone)},
		{"names are cut", "Names", "Lock(", spoilt(func(f *fakeStorage, m *storage.Memory) {
			f.lock = func(ctx context.Context, name string) (storage.Lease, error) {
				return m.Lock(ctx, name[:min(1, len(name))])
			}
		})},
		{"locks show among the values", "Hidden", "v1/a", spoilt(func(f *fakeStorage, m *storage.Memory) {
			f.lock = func(ctx context.Context, name string) (storage.Lease, error) {
				return &fakeLease{Lease: nil, ctx: ctx, unlock: func(context.Context) error { return nil }}, m.Store(ctx, "locks/"+name, nil)
			}
		})},
	}
}

// A lock that does nothing is caught by a backend that says no more than Open (F49).
func TestLockThatDoesNothingIsCaught(t *testing.T) {
	b := spoilt(func(f *fakeStorage, _ *storage.Memory) {
		f.lock = func(ctx context.Context, name string) (storage.Lease, error) {
			return storage.NewLease(ctx, name, storage.LeaseOptions{}), ctx.Err()
		}
	})
	for _, check := range []string{"LeaseContext", "Exclusion", "NotReentrant", "WaitEnds"} {
		wantCaught(t, lockerChecks(), fault{check: check, about: "", backend: b})
	}
	within := spoilt(func(*fakeStorage, *storage.Memory) {})
	wantCaught(t, lockerChecks(), fault{check: "Instances", about: "OneProcess", backend: within})
}

// waitFaults are about waiting for a lock.
func waitFaults() []fault {
	return []fault{
		{"a held lock is an error", "NotReentrant", "want to wait", spoilt(func(f *fakeStorage, m *storage.Memory) {
			f.lock = func(ctx context.Context, name string) (storage.Lease, error) {
				now, cancel := context.WithTimeout(ctx, time.Millisecond)
				defer cancel()
				l, err := m.Lock(now, name)
				if err != nil {
					return nil, errors.New("taken")
				}
				return &fakeLease{Lease: l, ctx: ctx}, nil
			}
		})},
		{"a wait that ends leaves its place taken", "WaitEnds", "Lock(", spoilt(func(f *fakeStorage, m *storage.Memory) {
			f.lock = func(ctx context.Context, name string) (storage.Lease, error) {
				got := make(chan storage.Lease, 1)
				go func() {
					l, err := m.Lock(context.WithoutCancel(ctx), name)
					if err == nil {
						got <- l
					}
				}()
				select {
				case l := <-got:
					return l, nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
		})},
		{"a wait does not end with its context", "WaitEnds", "goes on", spoilt(func(f *fakeStorage, m *storage.Memory) {
			f.lock = func(ctx context.Context, name string) (storage.Lease, error) {
				slow, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*promptly)
				defer cancel()
				l, err := m.Lock(slow, name)
				if err != nil {
					return nil, err
				}
				return &fakeLease{Lease: l, ctx: ctx}, nil
			}
		})},
		{"an ended context locks", "EndedContext", "Lock with an ended context", spoilt(func(f *fakeStorage, m *storage.Memory) {
			f.lock = func(ctx context.Context, name string) (storage.Lease, error) {
				return m.Lock(context.WithoutCancel(ctx), name)
			}
		})},
	}
}

// Locks that leave something behind are caught.
func TestResidueIsCaught(t *testing.T) {
	var mu sync.Mutex
	used := map[string]bool{}
	b := spoilt(func(f *fakeStorage, m *storage.Memory) {
		f.lock = func(ctx context.Context, name string) (storage.Lease, error) {
			mu.Lock()
			used[name] = true
			mu.Unlock()
			return m.Lock(ctx, name)
		}
	})
	b.Residue = func(testing.TB, storage.Storage) int { mu.Lock(); defer mu.Unlock(); return len(used) }
	wantCaught(t, lockerChecks(), fault{check: "Residue", about: "behind", backend: b})
}

// Locks that hold in one process only are caught, and so are values.
func TestProcessesApartAreCaught(t *testing.T) {
	t.Parallel()
	b := Backend{
		Address: func(testing.TB) string { return "" },
		Opener: Opener{Name: "apart", Open: func(string) (storage.Storage, error) {
			return storage.NewMemory(), nil
		}},
		Turns: 2000,
	}
	wantCaught(t, lockerChecks(), fault{check: "ExclusionOfProcesses", about: "a child process", backend: b})
	wantCaught(t, lockerChecks(), fault{check: "Killed", about: "while another holds it", backend: b})
	wantCaught(t, storageChecks(), fault{check: "Processes", about: "last/", backend: b})
	b.LeaseTTL = time.Second
	wantCaught(t, lockerChecks(), fault{check: "Stopped", about: "a holder that was stopped", backend: b})
}

// A killed holder's lock that is free too late is caught.
func TestLateTakeOverIsCaught(t *testing.T) {
	t.Parallel()
	b := Backend{
		Address:  func(tb testing.TB) string { return tb.TempDir() },
		Opener:   Opener{Name: "dir", Open: func(dir string) (storage.Storage, error) { return storage.OpenDir(dir) }},
		TakeOver: time.Nanosecond,
	}
	failures := record(t, lockerChecks(), "Killed", b)
	if !strings.Contains(strings.Join(failures, "\n"), "want at most") {
		t.Errorf("the check finds %q", failures)
	}
}
