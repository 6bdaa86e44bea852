package certwright

import (
	"log/slog"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/certwright/certwright/internal/slogzap"
)

// SlogLogger returns a logger for [Config.Logger] that hands everything to h.
func SlogLogger(h slog.Handler) *zap.Logger { return zap.New(slogzap.Core(h)) }

// defaultLogger writes warnings and errors to stderr as text.
func defaultLogger() *zap.Logger {
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.ISO8601TimeEncoder
	enc.EncodeLevel = zapcore.CapitalLevelEncoder
	sink := zapcore.Lock(os.Stderr)
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(enc), sink, zap.WarnLevel)).Named("certwright")
}

// slogOf gives the packages that log with log/slog the same destination.
func slogOf(l *zap.Logger) *slog.Logger {
	return slog.New(slogzap.Handler(l.Core(), l.Name()))
}

// panicField tells what a panic was called with. It is not zap.Any, which links
// most of zap.
func panicField(value any) zap.Field { return slogzap.Any("panic", value) }
