//go:build unix

package filelock_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certwright/certwright/internal/filelock"
)

func median(all []time.Duration) float64 {
	slices.Sort(all)
	return float64(all[len(all)/2]) / float64(time.Millisecond)
}

func BenchmarkLockUnlock(b *testing.B) {
	f := filelock.New(b.TempDir(), 0)
	defer f.Close()
	for b.Loop() {
		l, err := f.Lock(b.Context(), "a")
		if err == nil {
			err = l.Unlock()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHeld(b *testing.B) {
	f := filelock.New(b.TempDir(), 0)
	defer f.Close()
	l, err := f.Lock(b.Context(), "a")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := l.Held(); err != nil {
			b.Fatal(err)
		}
	}
}

// turnsChild says when it had the lock, which it holds for a while each time.
func turnsChild(f *filelock.Folder, _ string) error {
	for range 50 {
		l, err := f.Lock(context.Background(), "a")
		if err != nil {
			return err
		}
		got := time.Now().UnixNano()
		time.Sleep(50 * time.Millisecond)
		fmt.Println("turn", got, time.Now().UnixNano())
		if err := l.Unlock(); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// BenchmarkHandOff is from one process's call of Unlock to another's lock.
func BenchmarkHandOff(b *testing.B) {
	type span struct {
		got, gave int64
		who       int
	}
	for b.Loop() {
		dir := b.TempDir()
		var spans []span
		var errs []error
		all := []*child{start(b, "turns", time.Hour, dir), start(b, "turns", time.Hour, dir)}
		for who, c := range all {
			for line := range c.lines {
				s := span{who: who}
				if _, err := fmt.Sscanf(line, "turn %d %d", &s.got, &s.gave); err != nil {
					b.Fatal(line)
				}
				spans = append(spans, s)
			}
			errs = append(errs, c.wait())
		}
		if err := errors.Join(errs...); err != nil {
			b.Fatal(err)
		}
		slices.SortFunc(spans, func(x, y span) int { return int(x.got - y.got) })
		var took []time.Duration
		for i, s := range spans[1:] {
			if s.who != spans[i].who {
				took = append(took, time.Duration(s.got-spans[i].gave))
			}
		}
		b.ReportMetric(median(took), "median-ms")
	}
}

// BenchmarkTakeOver is from a holder's kill -9 to another's lock.
func BenchmarkTakeOver(b *testing.B) {
	dir := b.TempDir()
	f := filelock.New(dir, time.Hour)
	defer f.Close()
	var took []time.Duration
	for b.Loop() {
		c := start(b, "hold", time.Hour, dir)
		c.expect("locked")
		got := make(chan time.Time)
		go func() {
			l, err := f.Lock(context.Background(), "a")
			if err != nil && !strings.Contains(err.Error(), "closed") {
				b.Error(err)
			}
			got <- time.Now()
			_ = l.Unlock()
		}()
		time.Sleep(300 * time.Millisecond)
		killed := time.Now()
		_ = c.cmd.Process.Kill()
		took = append(took, (<-got).Sub(killed))
		_ = c.wait()
	}
	b.ReportMetric(median(took), "median-ms")
}
