package main

import (
	"bufio"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// cell is one row's value in one column, and sample what was measured for it.
type (
	cell    struct{ row, column string }
	samples map[cell][]float64
)

// results are all measured values, and the units of rows.
type results struct {
	samples samples
	units   map[string]string
	order   []string // rows as they came
}

func newResults() *results {
	return &results{samples: samples{}, units: map[string]string{}}
}

func (r *results) add(row, column string, value float64, unit string) {
	if _, ok := r.units[row]; !ok {
		r.units[row] = unit
		r.order = append(r.order, row)
	}
	c := cell{row, column}
	r.samples[c] = append(r.samples[c], value)
}

// median returns the median of what was measured, and false when nothing was.
func (r *results) median(row, column string) (float64, bool) {
	return median(r.samples[cell{row, column}])
}

func median(values []float64) (float64, bool) {
	n := len(values)
	if n == 0 {
		return 0, false
	}
	sorted := slices.Sorted(slices.Values(values))
	if n%2 == 1 {
		return sorted[n/2], true
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2, true
}

// rowLine is a row as programs print it, also behind what the log of a test puts
// before it.
var rowLine = regexp.MustCompile(`(?:^|\s)row ([\w.-]+) ([\w-]+) ([-+\d.eE]+) (\S+)\s*$`)

// benchLine is the line of a benchmark of package testing with a median.
var benchLine = regexp.MustCompile(`^Benchmark(\w+)/(\w+?)(?:-\d+)?\s.*?([\d.eE+-]+) median-ms`)

// lockRows are the rows of what the benchmarks of package locks are called.
func lockRow(benchmark string) (string, bool) {
	switch benchmark {
	case "Free":
		return "lock-free", true
	case "HandOff":
		return "lock-handoff", true
	case "TakeOver":
		return "lock-takeover", true
	}
	return "", false
}

// read takes all rows that it finds in the output of programs.
func (r *results) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		if m := rowLine.FindStringSubmatch(line); m != nil {
			if v, err := strconv.ParseFloat(m[3], 64); err == nil {
				r.add(m[1], m[2], v, m[4])
			}
			continue
		}
		m := benchLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		row, ok := lockRow(m[1])
		v, err := strconv.ParseFloat(m[3], 64)
		if !ok || err != nil {
			continue
		}
		column := m[2]
		if column == "flock" {
			column = limit
		}
		r.add(row, column, v, "ms")
	}
	return lines.Err()
}
