//go:build unix

package challenge_test

import (
	"context"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"syscall"
	"testing"
)

// A storage that hangs in the kernel has a thread for each call: strangers, whatever
// their number, cost no more threads than there are calls at once. (F47, F60)
func TestStrangersCostFewThreads(t *testing.T) {
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(pipe[0]) }) // when nobody reads any more
	end := os.NewFile(uintptr(pipe[1]), "pipe")
	store := &fakeStore{}
	table := instance(t, store)
	present(t, instance(t, store), httpChallenge("a.example.com", "tok1"))
	store.set(failOnly("load", func() error {
		_, err := syscall.Read(pipe[0], make([]byte, 1)) // until the other end is closed
		return err
	}))
	before := pprof.Lookup("threadcreate").Count()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 5_000 {
		wg.Go(func() { table.KeyAuthorization(ctx, "tok1") })
	}
	for running := 0; running < maxLoads; runtime.Gosched() {
		store.mu.Lock()
		running = store.running
		store.mu.Unlock()
	}
	cancel()
	wg.Wait()
	const most = maxLoads + maxLists + 16 // the last are the runtime's own
	if n := pprof.Lookup("threadcreate").Count() - before; n > most {
		t.Errorf("%d threads more, at most %d", n, most)
	}
	if err := end.Close(); err != nil {
		t.Error(err)
	}
}
