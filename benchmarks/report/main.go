// Command report reads the rows that the measuring programs print, takes the
// median of each, compares it with the limit and with its goal, and writes
// tables in Markdown.
//
//	report [-out file] [-revision text] [-note text] rows...
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

func main() {
	out := flag.String("out", "", "the page that is written besides the tables on standard output")
	revision := flag.String("revision", "", "what was measured")
	note := flag.String("note", "", "what else is to be known")
	mod := flag.String("mod", "go.mod", "where the versions of the compared libraries stand")
	flag.Parse()
	if err := run(*out, about{revision: *revision, note: *note}, *mod, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// about is what was measured, and when and where.
type about struct {
	machine, versions, revision, note string
	now                               time.Time
}

func run(out string, a about, mod string, files []string) error {
	r := newResults()
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := r.read(bytes.NewReader(text)); err != nil {
			return fmt.Errorf("reading rows from %q: %w", name, err)
		}
	}
	if len(r.order) == 0 {
		return fmt.Errorf("there is no row in %q", files)
	}
	versions, err := os.ReadFile(mod)
	if err != nil {
		return err
	}
	a.machine, a.versions, a.now = machine(), versionsIn(string(versions)), time.Now()
	text := r.page(a)
	fmt.Print(text)
	if out == "" {
		return nil
	}
	return os.WriteFile(out, []byte(text), 0o644)
}

// machine says what the measuring was done on.
func machine() string {
	text := fmt.Sprintf("%d cores, %s/%s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
	if model := fieldOf("/proc/cpuinfo", "model name"); model != "" {
		text = model + ", " + text
	}
	if total := fieldOf("/proc/meminfo", "MemTotal"); total != "" {
		var kb float64
		if _, err := fmt.Sscan(total, &kb); err == nil {
			text += fmt.Sprintf(", %.0f GB of memory", kb/1e6)
		}
	}
	return text
}

// fieldOf returns what follows a name and a colon in a file, or nothing.
func fieldOf(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		key, value, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// versionsIn finds the versions of the compared libraries in a go.mod.
func versionsIn(mod string) string {
	var found []string
	for line := range strings.Lines(mod) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "github.com/caddyserver/certmagic":
			found = append(found, "CertMagic "+f[1])
		case "golang.org/x/crypto":
			found = append(found, "autocert of x/crypto "+f[1])
		}
	}
	return strings.Join(found, ", ")
}
