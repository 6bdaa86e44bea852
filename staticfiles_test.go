package certwright_test

import (
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/certwright/certwright"
	"github.com/certwright/certwright/internal/fakeca"
)

func TestStaticFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ca, conf := newFake(t, fakeca.Options{})
		files, first := issuePair(t, ca, dir, "s.example.com")
		conf.Certificates = []StaticCertificate{{CertFile: files.cert, KeyFile: files.key}}
		var events eventLog
		conf.OnEvent = events.add
		log, logs := observed(slog.LevelError)
		conf.Logger = log
		m := start(t, conf)
		if !mustLeaf(t, m, "s.example.com").Equal(first) {
			t.Error("not the static certificate")
		}
		_, second := issuePair(t, ca, dir, "s.example.com")
		time.Sleep(2 * time.Minute)
		if !mustLeaf(t, m, "s.example.com").Equal(second) {
			t.Error("the replaced files are not served")
		}
		for _, broken := range []func(){
			func() { writeFile(t, files.cert, []byte("not a certificate")) },
			func() { issuePair(t, ca, dir, "s.example.com"); writeFile(t, files.key, []byte("not a key")) },
			func() { _ = os.Remove(files.cert) },
			func() {
				old, _ := os.ReadFile(files.key)
				issuePair(t, ca, dir, "s.example.com")
				writeFile(t, files.key, old)
			},
		} {
			broken()
			time.Sleep(2 * time.Minute)
			if !mustLeaf(t, m, "s.example.com").Equal(second) {
				t.Error("a broken replacement took the place of a good certificate")
			}
		}
		if logs.Len() != 1 {
			t.Errorf("%d error lines; want one for a failure that goes on", logs.Len())
		}
		_, third := issuePair(t, ca, dir, "s.example.com")
		time.Sleep(2 * time.Minute)
		if !mustLeaf(t, m, "s.example.com").Equal(third) {
			t.Error("the mended files are not served")
		}
		if n := events.count(EventReloaded); n != 2 {
			t.Errorf("%d reloads were told; want 2", n)
		}
		if n := ca.Count(""); n != 0 {
			t.Errorf("%d requests to the CA for a static certificate", n)
		}
	})
}
