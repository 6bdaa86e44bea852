package slogzap

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Handler returns a slog.Handler that writes every record to core under a
// logger's name, as the handler of zap/exp/zapslog does that this package's
// tests compare it with. That one refers to zap.Any and through it to the code
// for every type that a field can have, which is most of zap.
//
// The caller and a stack trace are not added. The Handler is safe for concurrent
// use, as core is.
func Handler(core zapcore.Core, name string) slog.Handler {
	return &handler{core: core, name: name}
}

// Any returns a field for a value of a type that is not known beforehand. An
// error, a Stringer, a string, strings and what marshals itself look as zap.Any
// makes them look; the rest is left to the core, which mostly means JSON.
func Any(key string, value any) zapcore.Field {
	switch v := value.(type) {
	case zapcore.ObjectMarshaler:
		return zap.Object(key, v)
	case zapcore.ArrayMarshaler:
		return zap.Array(key, v)
	case string:
		return zap.String(key, v)
	case []string:
		return zap.Strings(key, v)
	case error:
		return zap.NamedError(key, v)
	case fmt.Stringer:
		return zap.Stringer(key, v)
	default:
		return zap.Reflect(key, v)
	}
}

// handler is immutable: WithAttrs and WithGroup make another one.
type handler struct {
	core zapcore.Core
	name string
	// groups are open without anything in them yet. A group in which nothing
	// follows is to leave no trace.
	groups []string
}

func (h *handler) Enabled(_ context.Context, l slog.Level) bool {
	return h.core.Enabled(zapLevel(l))
}

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	entry := zapcore.Entry{Level: zapLevel(r.Level), Time: r.Time, Message: r.Message, LoggerName: h.name}
	checked := h.core.Check(entry, nil)
	if checked == nil {
		return nil
	}
	attrs := make([]slog.Attr, 0, r.NumAttrs())
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a)
		return true
	})
	checked.Write(h.fields(attrs)...)
	return nil
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	fields := h.fields(attrs)
	if len(fields) == 0 {
		return h
	}
	return &handler{core: h.core.With(fields), name: h.name}
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return &handler{core: h.core, name: h.name, groups: append(slices.Clip(h.groups), name)}
}

// fields returns attrs in the groups that are open. It is empty when nothing of
// attrs is to be seen.
func (h *handler) fields(attrs []slog.Attr) []zapcore.Field {
	fields := make([]zapcore.Field, 0, len(h.groups)+len(attrs))
	for _, g := range h.groups {
		fields = append(fields, zap.Namespace(g))
	}
	for _, a := range attrs {
		if f := fieldOf(a); f.Type != zapcore.SkipType {
			fields = append(fields, f)
		}
	}
	if len(fields) == len(h.groups) {
		return nil
	}
	return fields
}

// fieldOf returns the field for a, which is to be skipped when a is empty.
func fieldOf(a slog.Attr) zapcore.Field {
	if a.Equal(slog.Attr{}) {
		return zap.Skip()
	}
	switch v := a.Value.Resolve(); v.Kind() {
	case slog.KindBool:
		return zap.Bool(a.Key, v.Bool())
	case slog.KindDuration:
		return zap.Duration(a.Key, v.Duration())
	case slog.KindFloat64:
		return zap.Float64(a.Key, v.Float64())
	case slog.KindInt64:
		return zap.Int64(a.Key, v.Int64())
	case slog.KindString:
		return zap.String(a.Key, v.String())
	case slog.KindTime:
		return zap.Time(a.Key, v.Time())
	case slog.KindUint64:
		return zap.Uint64(a.Key, v.Uint64())
	case slog.KindGroup:
		return groupField(a.Key, v.Group())
	default:
		return Any(a.Key, v.Any())
	}
}

// groupField puts a group without a key into what is around it.
func groupField(key string, attrs []slog.Attr) zapcore.Field {
	switch {
	case len(attrs) == 0:
		return zap.Skip()
	case key == "":
		return zap.Inline(group(attrs))
	default:
		return zap.Object(key, group(attrs))
	}
}

// group is a group of attributes as an object.
type group []slog.Attr

func (g group) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	for _, a := range g {
		fieldOf(a).AddTo(enc)
	}
	return nil
}

// zapLevel returns the zap level of a slog level, which may lie between two.
func zapLevel(l slog.Level) zapcore.Level {
	switch {
	case l >= slog.LevelError:
		return zapcore.ErrorLevel
	case l >= slog.LevelWarn:
		return zapcore.WarnLevel
	case l >= slog.LevelInfo:
		return zapcore.InfoLevel
	default:
		return zapcore.DebugLevel
	}
}
