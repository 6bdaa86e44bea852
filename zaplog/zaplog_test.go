package zaplog_test

import (
	"errors"
	"log/slog"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/certwright/certwright"
	"github.com/certwright/certwright/storage"
	"github.com/certwright/certwright/zaplog"
)

func TestWritesWithTheLoggersNameFieldsAndLevel(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	log := zaplog.New(zap.New(core).Named("server").With(zap.Int("shard", 7)))
	log.Debug("debug")
	log.Info("info")
	log.Log(t.Context(), slog.LevelWarn-1, "below warn")
	log.Warn("warn")
	log.Log(t.Context(), slog.LevelError-1, "above warn")
	log.Error("error", "name", "a.example.com", "err", errors.New("no luck"))

	var levels string
	for _, e := range logs.All() {
		levels += e.Level.String() + " " + e.Message + ";"
		if e.LoggerName != "server" || e.ContextMap()["shard"] != int64(7) || e.Stack != "" {
			t.Errorf("got %+v", e)
		}
	}
	if want := "warn warn;warn above warn;error error;"; levels != want {
		t.Errorf("got %q, want %q", levels, want)
	}
	fields := logs.All()[logs.Len()-1].ContextMap()
	if fields["name"] != "a.example.com" || fields["err"] != "no luck" {
		t.Errorf("fields = %v", fields)
	}
}

// A nil logger is not the default one of a Manager: it writes nothing.
func TestNilWritesNothing(t *testing.T) {
	log := zaplog.New(nil)
	log.Error("lost")
	if log.Enabled(t.Context(), slog.LevelError) {
		t.Error("a logger that writes nothing is enabled")
	}
}

func TestManagerLogsToZap(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	dir, err := storage.OpenDir(t.TempDir() + "/new")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	m, err := certwright.New(certwright.Config{AgreeToTerms: true, Storage: dir, Logger: zaplog.New(zap.New(core))})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if logs.FilterField(zap.String("path", dir.Path())).FilterLevelExact(zap.InfoLevel).Len() != 1 {
		t.Errorf("no line names the new folder: %v", logs.All())
	}
}
