package storage

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

// interleave times each of the calls in turn, so that what else the host does
// hits all alike, and reports their medians.
func interleave(b *testing.B, names []string, calls ...func() error) {
	b.Helper()
	took := make([][]time.Duration, len(calls))
	for b.Loop() {
		for i, call := range calls {
			begun := time.Now()
			if err := call(); err != nil {
				b.Fatal(err)
			}
			took[i] = append(took[i], time.Since(begun))
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, name := range names {
		slices.Sort(took[i])
		b.ReportMetric(float64(took[i][len(took[i])/2])/1e3, name+"-median-µs")
	}
}

// BenchmarkDirLoad compares a Load with os.ReadFile of the same file.
func BenchmarkDirLoad(b *testing.B) {
	for _, key := range []string{"v1/certs/ca.example.com-directory/www.example.com", "v1/certs/ca.example.com-directory/*.example.com"} {
		b.Run(key, func(b *testing.B) {
			d, err := OpenDir(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			if err := d.Store(b.Context(), key, make([]byte, 3500)); err != nil {
				b.Fatal(err)
			}
			path := d.recordFile(key)
			ctx := b.Context()
			interleave(b, []string{"Load", "ReadFile"},
				func() error { _, err := d.Load(ctx, key); return err },
				func() error { _, err := os.ReadFile(path); return err })
		})
	}
}

// BenchmarkDirOpen opens folders of different sizes.
func BenchmarkDirOpen(b *testing.B) {
	for _, n := range []int{10, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := b.TempDir()
			d, err := OpenDir(dir)
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			plantRecords(b, d, n)
			interleave(b, []string{"open"}, func() error {
				again, err := OpenDir(dir)
				if err != nil {
					return err
				}
				if again.Fresh() {
					b.Error("a folder with values is fresh")
				}
				return again.Close()
			})
		})
	}
}

// plantRecords makes the files of n values, without the care of Store.
func plantRecords(tb testing.TB, d *Dir, n int) {
	tb.Helper()
	for i := range n {
		path := d.recordFile(fmt.Sprintf("v1/certs/ca/%d.example.com", i))
		if i == 0 {
			if err := d.Store(tb.Context(), "v1/certs/ca/0.example.com", nil); err != nil {
				tb.Fatal(err)
			}
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
}

// BenchmarkDirLock locks and unlocks what nobody else wants.
func BenchmarkDirLock(b *testing.B) {
	d, err := OpenDir(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		l, err := d.Lock(ctx, "name")
		if err == nil {
			err = l.Unlock(ctx)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
