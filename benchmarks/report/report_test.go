package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func readString(t *testing.T, text string) *results {
	t.Helper()
	r := newResults()
	if err := r.read(strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
		ok     bool
	}{
		{nil, 0, false},
		{[]float64{3}, 3, true},
		{[]float64{9, 1, 5}, 5, true},
		{[]float64{4, 1, 3, 2}, 2.5, true},
	} {
		if got, ok := median(test.values); got != test.want || ok != test.ok {
			t.Errorf("median(%v) = %v, %v, want %v, %v", test.values, got, ok, test.want, test.ok)
		}
	}
}

func TestMedianLeavesValues(t *testing.T) {
	values := []float64{3, 1, 2}
	median(values)
	if values[0] != 3 || values[1] != 1 || values[2] != 2 {
		t.Errorf("values were sorted: %v", values)
	}
}

func TestRead(t *testing.T) {
	r := readString(t, strings.Join([]string{
		"row hit certwright 60 ns",
		"row hit certwright 50 ns",
		"row hit certwright 1e3 ns",
		"    size_test.go:37: row size limit 6.2 MB",
		"goos: linux",
		"row hit certwright many ns",
		"narrow hit certwright 7 ns",
		"row hit certwright 7",
		"BenchmarkFree/flock-2         \t       1\t         0 ns/op\t         0.03 median-ms\t         0.1 slowest-ms",
		"BenchmarkTakeOver/certmagic   \t       1\t      8010 median-ms",
		"BenchmarkOther/certmagic-2   \t       1\t      1 median-ms",
	}, "\n"))
	for _, test := range []struct {
		row, column string
		want        float64
		unit        string
	}{
		{"hit", ours, 60, "ns"},
		{"size", limit, 6.2, "MB"},
		{"lock-free", limit, 0.03, "ms"},
		{"lock-takeover", certmagic, 8010, "ms"},
	} {
		if got, ok := r.median(test.row, test.column); !ok || got != test.want || r.units[test.row] != test.unit {
			t.Errorf("%s of %s = %v %s, %v, want %v %s", test.row, test.column, got, r.units[test.row], ok, test.want, test.unit)
		}
	}
	if want := "hit size lock-free lock-takeover"; strings.Join(r.order, " ") != want {
		t.Errorf("rows %v, want %s", r.order, want)
	}
}

func TestJudge(t *testing.T) {
	r := readString(t, "row a certwright 15 ns\nrow a limit 10 ns\nrow b certwright 3 ns\nrow c certwright 0 allocs\nrow d limit 1 ns\nrow e certwright 1 ns\nrow e limit 0 ns")
	for _, test := range []struct {
		spec spec
		want verdict
		text string
	}{
		{spec{id: "a", goal: within(1.5)}, reached, "≤ 1.5 × limit: reached"},
		{spec{id: "a", goal: within(1.49)}, missed, "≤ 1.49 × limit: **not reached**"},
		{spec{id: "b", goal: within(1.5)}, notMeasured, "≤ 1.5 × limit: not measured"},
		{spec{id: "b", goal: atMost(2)}, missed, "≤ 2 ns: **not reached**"},
		{spec{id: "b", goal: atMost(3)}, reached, "≤ 3 ns: reached"},
		{spec{id: "c", goal: atMost(0)}, reached, "≤ 0 allocs: reached"},
		{spec{id: "d", goal: atMost(5)}, notMeasured, "≤ 5 ns: not measured"},
		{spec{id: "e", goal: within(1)}, notMeasured, "≤ 1 × limit: not measured"},
		{spec{id: "a"}, noGoal, ""},
	} {
		if got := r.judge(test.spec); got != test.want {
			t.Errorf("judge(%+v) = %v, want %v", test.spec, got, test.want)
		}
		if got := r.goalText(test.spec); got != test.text {
			t.Errorf("goalText(%+v) = %q, want %q", test.spec, got, test.text)
		}
	}
}

func TestNumber(t *testing.T) {
	for _, test := range []struct {
		v    float64
		want string
	}{
		{0, "0"},
		{0.0312, "0.031"},
		{0.26, "0.26"},
		{1.5, "1.5"},
		{1.999, "2"},
		{42.34, "42.3"},
		{123.4, "123"},
		{1405, "1,405"},
		{70002, "70,002"},
		{1234567.8, "1,234,568"},
		{-4096, "-4,096"},
		{99.97, "100"},
		{1000, "1,000"},
	} {
		if got := number(test.v); got != test.want {
			t.Errorf("number(%v) = %q, want %q", test.v, got, test.want)
		}
	}
}

func TestPage(t *testing.T) {
	r := readString(t, strings.Join([]string{
		"row hit certwright 50 ns", "row hit certmagic 4710 ns", "row hit limit 40 ns",
		"row start-ready-10k limit 500 ms", "row start-ready-10k limit-parsed 790 ms", "row start-ready-10k certwright 1000 ms",
		"row growth-hit-1k certwright 30 ns", "row growth-hit-1m certwright 45 ns",
		"row dns-100 certwright 2150 ms", "row dns-100 limit 2100 ms",
		"row surprise certwright 7 bytes",
	}, "\n"))
	page := r.page(about{"a machine", "CertMagic v1", "abc123", "A note.", time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)})
	for _, want := range []string{
		"| hit, exact name, ns | 50 (1.25 ×) | 4,710 (118 ×) | – | 40 | ≤ 2 × limit: reached |\n",
		"| 10,000 certificates, all ready, ms | 1,000 (2.00 ×) | – | – | 500 (790) | ≤ 1 × limit: **not reached** |\n",
		"| on-demand hit | on-demand: not built yet |",
		"| hit, ns | certwright | 30 | – | – | 45 |\n",
		"## Issuing by DNS",
		"| 100 names, records shown 2 s after they are written, ms | 2,150 (1.02 ×) | – | – | 2,100 | ≤ 1.1 × limit: reached |\n",
		"| surprise, bytes | 7 |",
		"Measured on 28 November 2026", "a machine", "CertMagic v1", "abc123. A note.",
		"\n2 goals reached, 1 not.\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "|") && strings.HasPrefix(line, "| ") && strings.Count(line, "|") != 7 {
			t.Errorf("%d bars in %q", strings.Count(line, "|"), line)
		}
	}
}

// TestIDs looks at it that no two rows are measured under one ID.
func TestIDs(t *testing.T) {
	seen := map[string]bool{}
	for _, section := range sections() {
		for _, s := range section.rows {
			if seen[s.id] || s.id == "" || s.title == "" {
				t.Errorf("bad row %+v", s)
			}
			seen[s.id] = true
		}
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	rows, out := filepath.Join(dir, "rows"), filepath.Join(dir, "page.md")
	if err := os.WriteFile(rows, []byte("row hit certwright 50 ns\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(out, about{}, "../go.mod", []string{rows}); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "CertMagic v0") || !strings.Contains(string(page), "autocert of x/crypto v0") {
		t.Errorf("the page names no versions:\n%s", page)
	}
	if err := os.WriteFile(rows, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(out, about{}, "../go.mod", []string{rows}); err == nil {
		t.Error("a page without rows was written")
	}
}
