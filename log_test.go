package certwright

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/zap"
)

// What a Manager logs reaches a log/slog handler, level, fields and all.
func TestSlogLogger(t *testing.T) {
	var out bytes.Buffer
	log := SlogLogger(slog.NewJSONHandler(&out, nil))
	log.Debug("not wanted")
	log.Warn("a name failed", zap.String("name", "a.example.com"), zap.Error(errors.New("no luck")))
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || strings.Count(out.String(), "\n") != 1 {
		t.Fatalf("logged %q: %v", out.String(), err)
	}
	for key, want := range map[string]any{"level": "WARN", "msg": "a name failed", "name": "a.example.com"} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	if !strings.Contains(out.String(), "no luck") {
		t.Errorf("the error is missing: %s", out.String())
	}
}
