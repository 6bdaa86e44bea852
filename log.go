package certwright

import (
	"log/slog"
	"os"
)

// defaultLogger is used when Config.Logger is nil.
func defaultLogger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
