// Package slogzap joins log/slog and zap: a program that logs with one receives
// what a library logs with the other.
package slogzap

import (
	"context"
	"log/slog"
	"slices"

	"go.uber.org/zap/zapcore"
)

const (
	// loggerKey is the attribute that holds the name of the zap logger.
	loggerKey = "logger"
	// stackKey is the attribute that holds a stack trace, named as zap names it.
	stackKey = "stacktrace"
)

// Core returns a zapcore.Core that hands every entry to h, which alone decides
// what is enabled, how it looks and where it goes. A nil h discards everything.
// The Core is safe for concurrent use, as a slog.Handler is.
//
// Levels are mapped by LevelOf. Fields become attributes, namespaces and objects
// groups, and an error stays the error value that it is. A named logger adds the
// attribute "logger" and a stack trace the attribute "stacktrace", both outside
// any namespace. The caller, when zap was told to add it, is the record's source.
// Sync does nothing, for slog has no such thing.
func Core(h slog.Handler) zapcore.Core {
	if h == nil {
		return zapcore.NewNopCore()
	}
	return &core{handler: h}
}

// LevelOf returns the slog level of a zap level: debug, info, warn and error are
// the slog levels of these names, and what zap has above error follows it in
// steps of one. The order of levels is kept.
func LevelOf(l zapcore.Level) slog.Level {
	if l > zapcore.ErrorLevel {
		return slog.LevelError + slog.Level(l-zapcore.ErrorLevel)
	}
	return slog.Level(l) * (slog.LevelWarn - slog.LevelInfo)
}

// core is immutable: With makes another one.
type core struct {
	// handler has the fields that were added outside any namespace.
	handler slog.Handler
	// scopes are the namespaces that are open, the outermost first. They are
	// not given to the handler with WithGroup, because that would pull the
	// logger's name, which only Write knows, into the group.
	scopes []scope
}

func (c *core) Enabled(l zapcore.Level) bool {
	// Zap carries no context to hand on.
	return c.handler.Enabled(context.Background(), LevelOf(l))
}

func (c *core) With(fields []zapcore.Field) zapcore.Core {
	enc := newEncoder(c.scopes)
	enc.addFields(fields)
	next := &core{handler: c.handler, scopes: enc.scopes[1:]}
	if top := enc.scopes[0].attrs; len(top) > 0 {
		next.handler = c.handler.WithAttrs(top)
	}
	return next
}

func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	var pc uintptr
	if e.Caller.Defined {
		pc = e.Caller.PC
	}
	r := slog.NewRecord(e.Time, LevelOf(e.Level), e.Message, pc)
	if e.LoggerName != "" {
		r.AddAttrs(slog.String(loggerKey, e.LoggerName))
	}
	enc := newEncoder(c.scopes)
	enc.addFields(fields)
	r.AddAttrs(enc.attrs()...)
	if e.Stack != "" {
		r.AddAttrs(slog.String(stackKey, e.Stack))
	}
	return c.handler.Handle(context.Background(), r)
}

func (c *core) Sync() error { return nil }

// scope is a namespace with the attributes in it.
type scope struct {
	name  string
	attrs []slog.Attr
}

// newEncoder returns an encoder in which open are open, with an empty outermost
// scope around them. It does not write to open.
func newEncoder(open []scope) *encoder {
	e := &encoder{scopes: make([]scope, 1, 1+len(open))}
	for _, s := range open {
		e.scopes = append(e.scopes, scope{s.name, slices.Clip(s.attrs)})
	}
	return e
}
