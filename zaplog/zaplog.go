// Package zaplog makes a logger for certwright's Config.Logger of a zap logger.
// It is a package of its own so that programs without zap link none of it.
package zaplog

import (
	"log/slog"
	"math"

	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
)

// New returns a logger that writes to l, with l's name and fields, whatever l
// writes to and from the level that l has. Debug, info, warn and error are zap's
// levels of these names; a level between two of them counts as the lower one.
// Stack traces and callers are not added. A nil l writes nothing. The logger is
// safe for concurrent use.
func New(l *zap.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(zapslog.NewHandler(l.Core(), zapslog.WithName(l.Name()), zapslog.AddStacktraceAt(math.MaxInt)))
}
