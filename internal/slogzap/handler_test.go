package slogzap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// jsonCore writes one line of JSON for each entry to w.
func jsonCore(w io.Writer, least zapcore.Level) zapcore.Core {
	conf := zap.NewProductionEncoderConfig()
	conf.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	return zapcore.NewCore(zapcore.NewJSONEncoder(conf), zapcore.AddSync(w), least)
}

// fakeValuer is a value that says late what it is.
type fakeValuer struct{ v slog.Value }

func (f fakeValuer) LogValue() slog.Value { return f.v }

// fakeArray marshals itself.
type fakeArray struct{}

func (fakeArray) MarshalLogArray(e zapcore.ArrayEncoder) error {
	e.AppendInt(1)
	return nil
}

// nilError fails when it is asked for its text, as a nil pointer does.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

// What zap's own handler writes is what this one writes.
func TestHandlerWritesAsZapslog(t *testing.T) {
	at := time.Date(2026, 5, 1, 12, 0, 0, 5, time.UTC)
	for _, a := range []slog.Attr{
		{},
		slog.Bool("k", true), slog.Int("k", -3), slog.Uint64("k", 1<<64-1), slog.Float64("k", 0.25),
		slog.Duration("k", 90*time.Second), slog.Time("k", at), slog.String("k", "v"), slog.String("k", ""),
		slog.Any("k", nil), slog.Any("k", errors.New("boom")), slog.Any("k", fmt.Errorf("storing: %w", io.EOF)),
		slog.Any("k", errors.Join(io.EOF, io.ErrNoProgress)), slog.Any("k", (*nilError)(nil)),
		slog.Any("k", []string{"a", "b"}), slog.Any("k", []string(nil)), slog.Any("k", []int{1, 2}), slog.Any("k", []byte("v")),
		slog.Any("k", http.Header{"A": {"b"}}), slog.Any("k", struct{ A int }{7}), slog.Any("k", netip.MustParseAddr("127.0.0.1")),
		slog.Any("k", fakeObject{}), slog.Any("k", fakeArray{}), slog.Any("k", failingObject{}),
		slog.Any("k", fakeValuer{slog.IntValue(3)}), slog.Any("k", fakeValuer{slog.AnyValue(io.EOF)}),
		slog.Group("k", "a", 1, "b", slog.GroupValue(slog.String("c", "d"), slog.Attr{})),
		slog.Group("", "a", 1, "b", "c"),
		slog.Any("k", fakeValuer{slog.GroupValue(slog.Int("a", 1))}),
	} {
		var got, want bytes.Buffer
		for h, b := range map[slog.Handler]*bytes.Buffer{
			Handler(jsonCore(&got, zap.DebugLevel), "acme"):                                        &got,
			zapslog.NewHandler(jsonCore(&want, zap.DebugLevel), zapslog.WithName("acme"), noStack): &want,
		} {
			for _, l := range []slog.Level{-8, slog.LevelDebug, -1, slog.LevelInfo, 3, slog.LevelWarn, slog.LevelError, 12} {
				r := slog.NewRecord(at, l, "m", 0)
				r.AddAttrs(slog.Int("before", 1), a, slog.Int("after", 2))
				if err := h.Handle(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			bare := slog.NewRecord(at, slog.LevelInfo, "m", 0)
			full := bare.Clone()
			full.AddAttrs(a)
			deep := h.WithAttrs([]slog.Attr{a}).WithGroup("g").WithGroup("h")
			for _, h := range []slog.Handler{deep, deep.WithAttrs([]slog.Attr{a}), deep.WithAttrs([]slog.Attr{a}).WithGroup("i")} {
				for _, r := range []slog.Record{bare, full} {
					if err := h.Handle(t.Context(), r); err != nil {
						t.Fatal(err)
					}
				}
			}
			if n := strings.Count(b.String(), "\n"); n != 14 {
				t.Fatalf("%v: %d lines", a, n)
			}
		}
		if got.String() != want.String() {
			t.Errorf("%v: got\n%swant\n%s", a, &got, &want)
		}
	}
}

var noStack = zapslog.AddStacktraceAt(slog.Level(100))

// What zap.Any makes of a value looks the same.
func TestAnyLooksAsZapAny(t *testing.T) {
	for _, v := range []any{
		nil, true, 7, uint8(7), 0.5, "text", []byte("text"),
		[]string{"a"},
		errors.New("boom"), (*nilError)(nil),
		netip.MustParseAddr("::1"),
		fakeObject{},
		fakeArray{},
		map[string]int{"a": 1},
		struct{ A int }{1},
	} {
		var got, want bytes.Buffer
		zap.New(jsonCore(&got, zap.DebugLevel), zap.WithClock(fixedClock{})).Info("m", Any("k", v))
		zap.New(jsonCore(&want, zap.DebugLevel), zap.WithClock(fixedClock{})).Info("m", zap.Any("k", v))
		if got.String() != want.String() {
			t.Errorf("%T: got %swant %s", v, &got, &want)
		}
	}
}

type fixedClock struct{}

func (fixedClock) Now() time.Time                       { return time.Unix(1, 0) }
func (fixedClock) NewTicker(time.Duration) *time.Ticker { return time.NewTicker(time.Hour) }

func TestHandlerEnabled(t *testing.T) {
	for least, want := range map[zapcore.Level]slog.Level{
		zap.DebugLevel: -100, zap.InfoLevel: slog.LevelInfo, zap.WarnLevel: slog.LevelWarn, zap.ErrorLevel: slog.LevelError,
	} {
		var b bytes.Buffer
		h := Handler(jsonCore(&b, least), "")
		for l := slog.Level(-9); l < 13; l++ {
			b.Reset()
			if got := h.Enabled(t.Context(), l); got != (l >= want) {
				t.Errorf("%v at least %v: enabled is %v", l, least, got)
			}
			if err := h.Handle(t.Context(), slog.NewRecord(time.Now(), l, "m", 0)); err != nil || (b.Len() > 0) != (l >= want) {
				t.Errorf("%v at least %v: wrote %q, %v", l, least, &b, err)
			}
		}
	}
}

// An error stays the error that it is, for cores that look for one.
func TestHandlerHandsOnTheErrorItself(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	slog.New(Handler(core, "")).Warn("m", "err", fmt.Errorf("storing: %w", io.EOF))
	f := logs.All()[0].Context[0]
	if err, ok := f.Interface.(error); f.Type != zapcore.ErrorType || !ok || !errors.Is(err, io.EOF) {
		t.Errorf("got %+v", f)
	}
}

// Two loggers made of one do not see each other's groups.
func TestHandlerDoesNotShare(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	base := slog.New(Handler(core, "")).WithGroup("a").WithGroup("b").WithGroup("c")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() { base.WithGroup(fmt.Sprint(i)).Info(fmt.Sprint(i), "k", i) })
	}
	wg.Wait()
	for _, e := range logs.All() {
		if got := e.Context[3].Key; got != e.Message {
			t.Errorf("group %q in the entry of %q", got, e.Message)
		}
	}
	if logs.Len() != 8 {
		t.Errorf("%d entries", logs.Len())
	}
}

// A handler owes nothing more to log/slog, over a core of zap's own too.
func TestHandlerKeepsTheContract(t *testing.T) {
	for name, core := range map[string]func(io.Writer) zapcore.Core{
		"over Core": func(w io.Writer) zapcore.Core { return Core(slog.NewJSONHandler(w, nil)) },
		"over zap": func(w io.Writer) zapcore.Core {
			conf := zapcore.EncoderConfig{
				MessageKey: slog.MessageKey, LevelKey: slog.LevelKey, TimeKey: slog.TimeKey,
				EncodeLevel: zapcore.CapitalLevelEncoder, EncodeTime: zapcore.RFC3339NanoTimeEncoder,
			}
			return zapcore.NewCore(zapcore.NewJSONEncoder(conf), zapcore.AddSync(w), zap.DebugLevel)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			slogtest.Run(t, func(*testing.T) slog.Handler {
				b.Reset()
				return Handler(core(&b), "")
			}, func(t *testing.T) map[string]any {
				var m map[string]any
				if err := json.Unmarshal(b.Bytes(), &m); err != nil {
					t.Fatal(err)
				}
				return m
			})
		})
	}
}
