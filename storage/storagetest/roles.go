package storagetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/certwright/certwright/storage"
)

// roles are the tasks of child processes.
func roles() map[string]func(task, storage.Storage, *parent) error {
	return map[string]func(task, storage.Storage, *parent) error{
		"write": task.write,
		"turns": task.turns,
		"hold":  task.hold,
	}
}

// write stores whole values at the key, then one for itself, and waits to be
// killed.
func (k task) write(s storage.Storage, p *parent) error {
	p.next()
	for i := range k.Count {
		if err := s.Store(context.Background(), k.Key, stamped(i)); err != nil {
			return err
		}
	}
	if err := s.Store(context.Background(), fmt.Sprintf("last/%d", os.Getpid()), []byte("stored")); err != nil {
		return err
	}
	p.say("done")
	p.next()
	return nil
}

// turns takes the lock again and again. Each turn adds one to a counter in a
// file, in steps that another's turn at the same time would spoil, and holds a
// file that can be there only once.
func (k task) turns(s storage.Storage, p *parent) error {
	locker, ok := s.(storage.Locker)
	if !ok {
		return errors.New("the storage is no storage.Locker")
	}
	p.next()
	for range k.Count {
		l, err := locker.Lock(context.Background(), k.Key)
		if err != nil {
			return err
		}
		if err := oneTurn(k.Folder); err != nil {
			return err
		}
		if err := l.Unlock(context.Background()); err != nil {
			return err
		}
	}
	p.say("done")
	p.next()
	return nil
}

// oneTurn adds one to the counter in folder.
func oneTurn(folder string) error {
	guard, counter := filepath.Join(folder, "guard"), filepath.Join(folder, "counter")
	f, err := os.OpenFile(guard, os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return errors.New("two processes hold the lock at once")
	}
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	n, err := readCounter(folder)
	if err != nil {
		return err
	}
	if err := os.WriteFile(counter, []byte(strconv.Itoa(n+1)), 0o600); err != nil {
		return err
	}
	return os.Remove(guard)
}

// readCounter returns how many turns there were in folder.
func readCounter(folder string) (int, error) {
	text, err := os.ReadFile(filepath.Join(folder, "counter"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(text))
}

// hold takes the lock and does with it what the test says.
func (k task) hold(s storage.Storage, p *parent) error {
	locker, ok := s.(storage.Locker)
	if !ok {
		return errors.New("the storage is no storage.Locker")
	}
	l, err := locker.Lock(context.Background(), k.Key)
	if err != nil {
		return err
	}
	p.say("held")
	for {
		line, ok := p.next()
		if !ok {
			return nil
		}
		switch line {
		case "store":
			// Before the context is looked at: the store alone must be refused.
			p.say(outcome(s.Store(context.WithoutCancel(l.Context()), k.Key, []byte("late"))))
		case "wait":
			p.say(k.waitLost(l))
		case "unlock":
			p.say(outcome(l.Unlock(context.Background())))
		}
	}
}

// waitLost waits until the lease's context ends.
func (k task) waitLost(l storage.Lease) string {
	timer := time.NewTimer(k.Patience)
	defer timer.Stop()
	select {
	case <-l.Context().Done():
		return "ended"
	case <-timer.C:
		return "still held"
	}
}

// outcome says in a word what became of a call.
func outcome(err error) string {
	switch {
	case err == nil:
		return "done"
	case errors.Is(err, storage.ErrLeaseLost):
		return "lost"
	}
	return fmt.Sprintf("failed: %v", err)
}
