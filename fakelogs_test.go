package certwright_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
)

// observed returns a logger and what it was told from level on.
func observed(level slog.Level) (*slog.Logger, *fakeLogs) {
	logs := new(fakeLogs)
	return slog.New(&fakeHandler{logs: logs, level: level}), logs
}

// fakeLogs are the lines that a logger was told.
type fakeLogs struct {
	mu   sync.Mutex // guards list
	list []logLine
}

// logLine is one of them, with each value as text.
type logLine struct {
	Level   slog.Level
	Message string
	Fields  map[string]string
}

// All returns the lines in their order.
func (l *fakeLogs) All() []logLine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.list)
}

// TakeAll is All, and forgets the lines.
func (l *fakeLogs) TakeAll() []logLine {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.list
	l.list = nil
	return list
}

// Len returns how many lines there are.
func (l *fakeLogs) Len() int { return len(l.All()) }

// fakeHandler keeps lines in logs.
type fakeHandler struct {
	logs  *fakeLogs
	level slog.Level
	attrs []slog.Attr
}

func (h *fakeHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *fakeHandler) Handle(_ context.Context, r slog.Record) error {
	line := logLine{Level: r.Level, Message: r.Message, Fields: map[string]string{}}
	add := func(a slog.Attr) bool {
		line.Fields[a.Key] = a.Value.Resolve().String()
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	h.logs.mu.Lock()
	defer h.logs.mu.Unlock()
	h.logs.list = append(h.logs.list, line)
	return nil
}

func (h *fakeHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &fakeHandler{logs: h.logs, level: h.level, attrs: append(slices.Clip(h.attrs), attrs...)}
}

// WithGroup is not used by what is tested.
func (h *fakeHandler) WithGroup(string) slog.Handler { return h }
