package certwright_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestArchitecturePageNamesWhatThereIs looks up each file, and each function,
// method and type of a file, that docs/architecture.md names.
func TestArchitecturePageNamesWhatThereIs(t *testing.T) {
	names := regexp.MustCompile("`([a-z0-9_/]+\\.go)(?:: (\\w+))?`").FindAllStringSubmatch(readText(t, "docs/architecture.md"), -1)
	if len(names) < 50 {
		t.Fatalf("only %d names were found: does the page still write them as file.go: name?", len(names))
	}
	for _, n := range names {
		declared := regexp.MustCompile(`(?m)^(func (\(.*?\) )?|type )` + n[2] + `\b`)
		if text := readText(t, n[1]); n[2] != "" && !declared.MatchString(text) {
			t.Errorf("docs/architecture.md names %s, which is not there", n[0])
		}
	}
}

// TestEachPromiseNamesItsTests compares the promises of the README with those that
// docs/architecture.md names tests for; that the tests are there is looked up above.
func TestEachPromiseNamesItsTests(t *testing.T) {
	promises := regexp.MustCompile(`(?m)^(\d)\. \*\*`).FindAllStringSubmatch(readText(t, "README.md"), -1)
	rows := regexp.MustCompile("(?m)^\\| (\\d) \\|.*: Test\\w+` \\|$").FindAllStringSubmatch(readText(t, "docs/architecture.md"), -1)
	if len(promises) != 9 || len(rows) != 9 {
		t.Fatalf("%d promises, of %d the tests are named", len(promises), len(rows))
	}
	for i := range rows {
		if rows[i][1] != promises[i][1] {
			t.Errorf("row %d is for promise %s", i+1, rows[i][1])
		}
	}
}

// TestRoomsImportWhatTheArchitecturePageSays compares its table with the code.
func TestRoomsImportWhatTheArchitecturePageSays(t *testing.T) {
	rooms := regexp.MustCompile("(?m)^\\| `([a-z/]+)` \\|.*\\|([a-z ]*)\\|$").FindAllStringSubmatch(readText(t, "docs/architecture.md"), -1)
	if len(rooms) < 15 {
		t.Fatalf("only %d rooms were found", len(rooms))
	}
	own := regexp.MustCompile(`(?m)^\s*(?:import )?"github\.com/certwright/certwright/(?:[a-z/]+/)?([a-z]+)"$`)
	for _, room := range rooms {
		files, err := filepath.Glob(room[1] + "/*.go")
		if err != nil || len(files) == 0 {
			t.Errorf("the room %q has %d files: %v", room[1], len(files), err)
		}
		var got []string
		for _, file := range files {
			for _, m := range own.FindAllStringSubmatch(readText(t, file), -1) {
				if !strings.HasSuffix(file, "_test.go") {
					got = append(got, m[1])
				}
			}
		}
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, strings.Fields(room[2])) {
			t.Errorf("%s imports %q, the page says %q", room[1], got, room[2])
		}
	}
}

func readText(t *testing.T, file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
