package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// columnsShown are the columns of a table, in order.
func columnsShown() []string { return []string{ours, certmagic, autocert, limit} }

// verdict says whether a goal is reached.
type verdict int

const (
	noGoal verdict = iota
	notMeasured
	reached
	missed
)

// judge compares a row with its goal.
func (r *results) judge(s spec) verdict {
	if s.goal == (goal{}) {
		return noGoal
	}
	value, ok := r.median(s.id, ours)
	if !ok {
		return notMeasured
	}
	good := true
	if s.goal.bounded {
		good = value <= s.goal.most
	}
	if s.goal.ratio != 0 {
		base, ok := r.median(s.id, limit)
		if !ok || base <= 0 {
			return notMeasured
		}
		good = value/base <= s.goal.ratio
	}
	if good {
		return reached
	}
	return missed
}

// goalText writes a goal with its verdict.
func (r *results) goalText(s spec) string {
	var text string
	switch {
	case s.goal.bounded:
		text = strings.TrimSpace("≤ " + number(s.goal.most) + " " + r.units[s.id])
	case s.goal.ratio != 0:
		text = "≤ " + number(s.goal.ratio) + " × limit"
	}
	switch r.judge(s) {
	case reached:
		return text + ": reached"
	case missed:
		return text + ": **not reached**"
	case notMeasured:
		return text + ": not measured"
	}
	return ""
}

// value writes one cell: the median, and how it compares with the limit.
func (r *results) value(row, column string) string {
	v, ok := r.median(row, column)
	if !ok {
		return "–"
	}
	text := number(v)
	if column == limit {
		if parsed, ok := r.median(row, limitParsed); ok {
			text += " (" + number(parsed) + ")"
		}
		return text
	}
	if base, ok := r.median(row, limit); ok && base > 0 {
		text += " (" + ratio(v/base) + ")"
	}
	return text
}

// line returns the cells of a row of a table.
func (r *results) line(s spec) []string {
	title := s.title
	if unit := r.units[s.id]; unit != "" {
		title += ", " + unit
	}
	cells := []string{title}
	if s.waits != "" {
		return append(cells, s.waits, "", "", "", "")
	}
	for _, column := range columnsShown() {
		cells = append(cells, r.value(s.id, column))
	}
	return append(cells, r.goalText(s))
}

func tableHead() []string { return append(append([]string{"Work"}, columnsShown()...), "goal") }

// table writes rows in Markdown.
func table(head []string, rows [][]string) string {
	var b strings.Builder
	write := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	write(head)
	b.WriteString("|" + strings.Repeat("---|", len(head)) + "\n")
	for _, row := range rows {
		write(row)
	}
	return b.String()
}

// growthTable shows rows by the number of names.
func (r *results) growthTable() string {
	var rows [][]string
	for _, s := range growth() {
		for _, column := range []string{ours, certmagic, limit} {
			cells := []string{s.title, column}
			some := false
			for _, size := range growthSizes() {
				id := s.id + "-" + size
				v, ok := r.median(id, column)
				if !ok {
					cells = append(cells, "–")
					continue
				}
				some = true
				if unit := r.units[id]; !strings.HasSuffix(cells[0], unit) {
					cells[0] += ", " + unit
				}
				cells = append(cells, number(v))
			}
			if some {
				rows = append(rows, cells)
			}
		}
	}
	return table(append([]string{"Work", "column"}, "1,000", "10,000", "100,000", "1,000,000"), rows)
}

// others are the rows that no table asks for.
func (r *results) others() []spec {
	known := map[string]bool{}
	for _, section := range sections() {
		for _, s := range section.rows {
			known[s.id] = true
		}
	}
	for _, s := range growth() {
		for _, size := range growthSizes() {
			known[s.id+"-"+size] = true
		}
	}
	var list []spec
	for _, id := range r.order {
		if !known[id] {
			list = append(list, spec{id: id, title: id})
		}
	}
	return list
}

// number writes v with three digits that count, or all of those before the point.
func number(v float64) string {
	a := math.Abs(v)
	digits := 0
	switch {
	case a == math.Trunc(a) && a < 1e15:
	case a < 0.1:
		digits = 3
	case a < 10:
		digits = 2
	case a < 100:
		digits = 1
	}
	text := strconv.FormatFloat(v, 'f', digits, 64)
	whole, rest, hasRest := strings.Cut(text, ".")
	if hasRest {
		rest = strings.TrimRight(rest, "0")
	}
	sign := ""
	if strings.HasPrefix(whole, "-") {
		sign, whole = "-", whole[1:]
	}
	var groups []string
	for len(whole) > 3 {
		groups = append(groups, whole[len(whole)-3:])
		whole = whole[:len(whole)-3]
	}
	groups = append(groups, whole)
	slices.Reverse(groups)
	text = sign + strings.Join(groups, ",")
	if rest != "" {
		text += "." + rest
	}
	return text
}

func ratio(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.2f ×", v)
	}
	return number(math.Round(v)) + " ×"
}
