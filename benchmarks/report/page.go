package main

import (
	_ "embed"
	"fmt"
	"runtime"
	"strings"
)

// why says where the time goes where a goal is hard to reach. It is written by
// hand, from profiles.
//
//go:embed why.md
var why string

const intro = `# Performance

This page is written by ` + "`bash ci/bench.sh`" + `. Times differ from one machine to the next and with what else runs on it; what
counts are the ratios, which were measured in one run. Each number is the median of several measurements, taken in turn
for all columns, over the same certificates: P-256 leaves of about 900 bytes with one intermediate, far from their
expiry, without an OCSP responder.

- **certwright** is this library, as its users call it.
- **certmagic** is a ` + "`certmagic.Config`" + ` with a ` + "`Cache`" + ` of its own over a ` + "`FileStorage`" + `.
- **autocert** is an ` + "`autocert.Manager`" + ` over a ` + "`DirCache`" + `.
- **limit** is the least that a program can do to the same end; what that is stands above each table.

Numbers in brackets with × say how many times the limit a value is. A dash means that a library does not have it, or
that it was not measured. Goals are those set for certwright.
`

// page writes the whole page.
func (r *results) page(a about) string {
	var b strings.Builder
	b.WriteString(intro)
	fmt.Fprintf(&b, "\nMeasured on %s, with %s, on %s. %s.", a.now.UTC().Format("2 January 2006"), runtime.Version(), a.machine, a.versions)
	if a.revision != "" {
		fmt.Fprintf(&b, " certwright at %s.", a.revision)
	}
	if a.note != "" {
		b.WriteString(" " + a.note)
	}
	b.WriteString("\n")
	good, bad := r.count()
	fmt.Fprintf(&b, "\n%d goals reached, %d not.\n", good, bad)
	for _, s := range sections() {
		rows := make([][]string, 0, len(s.rows))
		for _, row := range s.rows {
			rows = append(rows, r.line(row))
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n%s", s.title, s.about, table(tableHead(), rows))
	}
	fmt.Fprintf(&b, "\n## Growth\n\n%s\n\n%s", aboutGrowth, r.growthTable())
	if others := r.others(); len(others) > 0 {
		rows := make([][]string, 0, len(others))
		for _, row := range others {
			rows = append(rows, r.line(row))
		}
		fmt.Fprintf(&b, "\n## Also measured\n\n%s", table(tableHead(), rows))
	}
	b.WriteString("\n" + why)
	return b.String()
}

// count returns how many goals are reached and how many are not.
func (r *results) count() (good, bad int) {
	for _, section := range sections() {
		for _, s := range section.rows {
			switch r.judge(s) {
			case reached:
				good++
			case missed:
				bad++
			}
		}
	}
	return good, bad
}
