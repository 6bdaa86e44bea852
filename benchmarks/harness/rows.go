// Package harness is what the measuring programs have in common: rows of
// results, child processes, a genuine ClientHello, and counters of time and
// memory.
package harness

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Columns of a row. A program may have others, which are shown beside Limit.
const (
	Certwright  = "certwright"
	CertMagic   = "certmagic"
	Autocert    = "autocert"
	Limit       = "limit"
	LimitParsed = "limit-parsed" // the limit with every certificate parsed
)

// Row prints a measured value for package report, which takes the median of
// those that have the same row and column.
func Row(id, column string, value float64, unit string) {
	fmt.Printf("row %s %s %.6g %s\n", id, column, value, unit)
}

// Milliseconds returns d in ms.
func Milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }

// Percentile returns the value below which the part p of values lies. It sorts
// values.
func Percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(int(p*float64(len(values))), len(values)-1)]
}

const envChild = "CERTWRIGHT_BENCH_CHILD"

// Main runs parent, which is told of the flag -quick, or child when the process
// was started by Child, and exits.
func Main(parent func(quick bool) error, child func(args []string) error) {
	quick := flag.Bool("quick", false, "measure shortly, with few certificates")
	flag.Parse()
	var err error
	if args, ok := os.LookupEnv(envChild); ok {
		err = child(strings.Fields(args))
	} else {
		err = parent(*quick)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0) // whatever a library has left running
}

// childTime is the most that a child takes; one that hangs is killed.
const childTime = 3 * time.Minute

// Child runs this program again, as a process with nothing in its memory, and
// lets it print rows.
func Child(args ...string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), childTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe)
	line := strings.Join(args, " ")
	cmd.Env = append(os.Environ(), envChild+"="+line)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err = cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("it took longer than %v", childTime)
	}
	if err != nil {
		return fmt.Errorf("measuring %q: %w", line, err)
	}
	return nil
}

// Short writes a round number of names for an ID.
func Short(n int) string {
	if n >= 1_000_000 {
		return fmt.Sprintf("%dm", n/1_000_000)
	}
	return fmt.Sprintf("%dk", n/1000)
}
