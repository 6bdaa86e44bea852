//go:build unix

package harness

import (
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

// CPU returns the time that all threads of the process have been running.
func CPU() time.Duration {
	u := usage()
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// PeakRSS returns the most memory that the process has had, in bytes.
func PeakRSS() int64 {
	rss := int64(usage().Maxrss)
	if runtime.GOOS != "darwin" { // where it is in bytes
		rss <<= 10
	}
	return rss
}

func usage() syscall.Rusage {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails for no process of one's own
	return u
}

// Allocations returns how many objects and bytes have been allocated.
func Allocations() (objects, bytes uint64) {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.Mallocs, s.TotalAlloc
}

// Heap returns the size of what is in use, after garbage was collected.
func Heap() int64 {
	for range 3 { // pools keep what they have for two
		runtime.GC()
	}
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// Watch returns how long the process has been running on a core while wait was
// waiting, and how many objects it allocated.
func Watch(wait func() error) (cpu time.Duration, objects uint64, err error) {
	debug.FreeOSMemory() // or the runtime does so, little by little, meanwhile
	time.Sleep(100 * time.Millisecond)
	before, _ := Allocations()
	began := CPU()
	err = wait()
	cpu = CPU() - began
	after, _ := Allocations()
	return cpu, after - before, err
}
