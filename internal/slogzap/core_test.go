package slogzap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"
)

// logged runs log with a zap logger over a JSON handler and returns the lines,
// without their time and the newline.
func logged(opts slog.HandlerOptions, log func(*zap.Logger), zopts ...zap.Option) string {
	var b bytes.Buffer
	opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	log(zap.New(Core(slog.NewJSONHandler(&b, &opts)), zopts...))
	return strings.TrimSuffix(b.String(), "\n")
}

type fakeObject struct{}

func (fakeObject) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("type", "urn:x")
	zap.Namespace("inner").AddTo(e)
	e.AddInt("code", 7)
	return nil
}

type failingObject struct{}

func (failingObject) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddInt("a", 1)
	return errors.New("half done")
}

func TestFields(t *testing.T) {
	at := time.Date(2026, 5, 1, 12, 0, 0, 5, time.FixedZone("", 3600))
	for _, tt := range []struct {
		field zap.Field
		want  string
	}{
		{zap.String("k", "v"), `"k":"v"`},
		{zap.ByteString("k", []byte("v")), `"k":"v"`},
		{zap.Binary("k", []byte{1, 2}), `"k":"AQI="`},
		{zap.Bool("k", true), `"k":true`},
		{zap.Int("k", -3), `"k":-3`},
		{zap.Int32("k", -3), `"k":-3`},
		{zap.Int16("k", -3), `"k":-3`},
		{zap.Int8("k", -3), `"k":-3`},
		{zap.Uint("k", 3), `"k":3`},
		{zap.Uint64("k", 1<<64-1), `"k":18446744073709551615`},
		{zap.Uint32("k", 3), `"k":3`},
		{zap.Uint16("k", 3), `"k":3`},
		{zap.Uint8("k", 3), `"k":3`},
		{zap.Uintptr("k", 3), `"k":3`},
		{zap.Float64("k", 0.25), `"k":0.25`},
		{zap.Float32("k", 0.1), `"k":0.1`},
		{zap.Complex128("k", 1+2i), `"k":"(1+2i)"`},
		{zap.Complex64("k", 0.1+2i), `"k":"(0.1+2i)"`},
		{zap.Duration("k", 90*time.Second), `"k":90000000000`},
		{zap.Time("k", at), `"k":"2026-05-01T12:00:00.000000005+01:00"`},
		{zap.Time("k", time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)), `"k":"9999-01-01T00:00:00Z"`},
		{zap.Stringer("k", zapcore.WarnLevel), `"k":"warn"`},
		{zap.Error(errors.New("boom")), `"error":"boom"`},
		{zap.NamedError("err", fmt.Errorf("storing: %w", io.EOF)), `"err":"storing: EOF"`},
		{zap.Error(nil), ``},
		{zap.Skip(), ``},
		{zap.Any("k", map[string]int{"a": 1}), `"k":{"a":1}`},
		{zap.Reflect("k", nil), `"k":null`},
		{zap.Strings("k", []string{"a", "b"}), `"k":["a","b"]`},
		{zap.Strings("k", nil), `"k":[]`},
		{zap.Durations("k", []time.Duration{1, 2}), `"k":[1,2]`},
		{zap.Errors("k", []error{io.EOF}), `"k":[{"error":"EOF"}]`},
		{zap.Objects("k", []fakeObject{{}}), `"k":[{"inner":{"code":7},"type":"urn:x"}]`},
		{zap.Object("k", fakeObject{}), `"k":{"type":"urn:x","inner":{"code":7}}`},
		{zap.Object("k", failingObject{}), `"k":{"a":1},"kError":"half done"`},
		{zap.Inline(failingObject{}), `"a":1,"Error":"half done"`},
		{zap.Dict("k", zap.Int("a", 1), zap.String("b", "x")), `"k":{"a":1,"b":"x"}`},
	} {
		t.Run(fmt.Sprintf("%d %s", tt.field.Type, tt.want), func(t *testing.T) {
			want := `{"level":"INFO","msg":"m"`
			if tt.want != "" {
				want += "," + tt.want
			}
			want += "}"
			if got := logged(slog.HandlerOptions{}, func(l *zap.Logger) { l.Info("m", tt.field) }); got != want {
				t.Errorf("written: got %s, want %s", got, want)
			}
			if got := logged(slog.HandlerOptions{}, func(l *zap.Logger) { l.With(tt.field).Info("m") }); got != want {
				t.Errorf("with: got %s, want %s", got, want)
			}
		})
	}
}

func TestStructure(t *testing.T) {
	for _, tt := range []struct {
		name string
		log  func(*zap.Logger)
		want string
	}{
		{"name", func(l *zap.Logger) { l.Named("acme").Named("http").Info("m") }, `"logger":"acme.http"`},
		{"with, then a field", func(l *zap.Logger) {
			l.With(zap.Int("a", 1)).With(zap.Int("b", 2)).Info("m", zap.Int("c", 3))
		}, `"a":1,"b":2,"c":3`},
		{"namespace at the call", func(l *zap.Logger) {
			l.Info("m", zap.Int("a", 1), zap.Namespace("n"), zap.Int("b", 2))
		}, `"a":1,"n":{"b":2}`},
		{"namespace in With", func(l *zap.Logger) {
			l.With(zap.Int("a", 1), zap.Namespace("n"), zap.Int("b", 2)).With(zap.Int("c", 3)).Info("m", zap.Int("d", 4))
		}, `"a":1,"n":{"b":2,"c":3,"d":4}`},
		{"namespaces", func(l *zap.Logger) {
			l.With(zap.Namespace("n")).With(zap.Int("a", 1), zap.Namespace("o")).Info("m", zap.Namespace("p"), zap.Int("b", 2))
		}, `"n":{"a":1,"o":{"p":{"b":2}}}`},
		{"empty namespace", func(l *zap.Logger) { l.With(zap.Namespace("n")).Info("m") }, ``},
		{"name outside of a namespace", func(l *zap.Logger) {
			l.With(zap.Namespace("n")).Named("acme").Info("m", zap.Int("a", 1))
		}, `"logger":"acme","n":{"a":1}`},
		{"lazy", func(l *zap.Logger) { l.WithLazy(zap.Int("a", 1)).Info("m") }, `"a":1`},
		{"sugar", func(l *zap.Logger) { l.Sugar().Infow("m", "a", 1, "err", io.EOF) }, `"a":1,"err":"EOF"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := `{"level":"INFO","msg":"m"`
			if tt.want != "" {
				want += "," + tt.want
			}
			if got := logged(slog.HandlerOptions{}, tt.log); got != want+"}" {
				t.Errorf("got %s, want %s}", got, want)
			}
		})
	}
}

// Two loggers made of one do not see each other's fields, in a namespace or out.
func TestWithDoesNotShare(t *testing.T) {
	for _, base := range []zap.Field{zap.Int("z", 0), zap.Namespace("n")} {
		got := logged(slog.HandlerOptions{}, func(l *zap.Logger) {
			l = l.With(base, zap.Int("y", 0)).With(zap.Int("x", 0)).With(zap.Int("w", 0))
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() { l.With(zap.Int("a", i)).Info("m", zap.Int("b", i)) })
			}
			wg.Wait()
		})
		for i := range 8 {
			if want := fmt.Sprintf(`"w":0,"a":%d,"b":%d}`, i, i); strings.Count(got, want) != 1 {
				t.Errorf("%s: no line with %s in\n%s", base.Key, want, got)
			}
		}
	}
}

func TestLevels(t *testing.T) {
	want := map[zapcore.Level]slog.Level{
		-2: -8, zapcore.DebugLevel: slog.LevelDebug, zapcore.InfoLevel: slog.LevelInfo,
		zapcore.WarnLevel: slog.LevelWarn, zapcore.ErrorLevel: slog.LevelError,
		zapcore.DPanicLevel: 9, zapcore.PanicLevel: 10, zapcore.FatalLevel: 11,
	}
	for l, s := range want {
		if got := LevelOf(l); got != s {
			t.Errorf("LevelOf(%v) = %v, want %v", l, got, s)
		}
		for _, least := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
			c := Core(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: least}))
			if got := c.Enabled(l); got != (s >= least) {
				t.Errorf("%v enabled at least level %v: %v", l, least, got)
			}
		}
	}
	got := logged(slog.HandlerOptions{Level: slog.LevelWarn}, func(l *zap.Logger) {
		l.Debug("no")
		l.Info("no")
		l.Warn("yes")
		l.Error("yes")
		l.DPanic("yes")
	})
	if want := `{"level":"WARN","msg":"yes"}` + "\n" + `{"level":"ERROR","msg":"yes"}` + "\n" +
		`{"level":"ERROR+1","msg":"yes"}`; got != want {
		t.Errorf("got %s", got)
	}
}

func TestCallerAndStack(t *testing.T) {
	_, _, line, _ := runtime.Caller(0)
	got := logged(slog.HandlerOptions{AddSource: true}, func(l *zap.Logger) {
		l.Error("m") // two lines below runtime.Caller
	}, zap.AddCaller(), zap.AddStacktrace(zapcore.ErrorLevel))
	var record struct {
		Source     slog.Source
		Stacktrace string
	}
	if err := json.Unmarshal([]byte(got), &record); err != nil {
		t.Fatal(err)
	}
	if filepath.Base(record.Source.File) != "core_test.go" || record.Source.Line != line+2 {
		t.Errorf("source is %+v, want line %d", record.Source, line+2)
	}
	if !strings.Contains(record.Stacktrace, "TestCallerAndStack") {
		t.Errorf("stack is %q", record.Stacktrace)
	}
}

// fakeHandler keeps the last record and fails with err.
type fakeHandler struct {
	slog.Handler
	last *slog.Record
	err  error
}

func (h fakeHandler) Handle(_ context.Context, r slog.Record) error { *h.last = r; return h.err }

func TestHandlerGetsTheErrorItself(t *testing.T) {
	var last slog.Record
	h := fakeHandler{slog.DiscardHandler, &last, errors.New("disk full")}
	cause := fmt.Errorf("storing: %w", io.EOF)
	entry := zapcore.Entry{Message: "m", Time: time.Unix(1, 0)}
	if err := Core(h).Write(entry, []zap.Field{zap.Error(cause)}); !errors.Is(err, h.err) {
		t.Errorf("Write returned %v", err)
	}
	found := false
	last.Attrs(func(a slog.Attr) bool {
		err, ok := a.Value.Any().(error)
		found = ok && errors.Is(err, io.EOF)
		return !found
	})
	if !found || !last.Time.Equal(entry.Time) || last.PC != 0 {
		t.Errorf("got %+v", last)
	}
}

func TestNilHandlerDiscards(t *testing.T) {
	c := Core(nil)
	if c.Enabled(zapcore.FatalLevel) {
		t.Error("enabled")
	}
	if err := zap.New(c).Sync(); err != nil {
		t.Error(err)
	}
}

// The path of a slog record through zap and back loses nothing that a handler
// owes.
func TestRoundTrip(t *testing.T) {
	var b bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		b.Reset()
		return zapslog.NewHandler(Core(slog.NewJSONHandler(&b, nil)))
	}, func(t *testing.T) map[string]any {
		var m map[string]any
		if err := json.Unmarshal(b.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		return m
	})
}
