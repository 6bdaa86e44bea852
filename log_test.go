package certwright

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNilLoggerWritesWarningsAsTextToStderr(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stderr := os.Stderr
	os.Stderr = f
	log := defaultLogger()
	os.Stderr = stderr
	log.Info("not told")
	log.Warn("told", "name", "a.example.com")
	b, err := os.ReadFile(f.Name())
	if text := string(b); err != nil || strings.Count(text, "\n") != 1 || !strings.Contains(text, `level=WARN msg=told name=a.example.com`) {
		t.Errorf("wrote %q, %v", b, err)
	}
}
