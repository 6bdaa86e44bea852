package storage

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/certwright/certwright/internal/durable"
)

// leaseHead begins every lease file; the token and the beat follow, one a line,
// and then a line for who looks into the file.
const leaseHead = "certwright lease 1\n"

func newLeaseToken() string { return rand.Text() }

func leaseTemp(dir string) string { return durable.TempPath(dir) }

// content returns the file's content at a beat. Its length is always the same,
// so that writing over it leaves nothing of the old.
func (l *leaseFile) content(beat uint64) string {
	return fmt.Sprintf("%s%s\n%020d\nprocess %d\n", leaseHead, l.token, beat, os.Getpid())
}

// owns reports whether content is of the lease's own file.
func (l *leaseFile) owns(content string) bool {
	rest, ok := strings.CutPrefix(content, leaseHead)
	return ok && strings.HasPrefix(rest, l.token+"\n")
}

// readTurns returns the content of each turn in the folder of a lock. Files that
// are no turns are passed over; a missing folder has none.
func readTurns(dir string) (map[uint64]string, error) {
	turns := make(map[uint64]string)
	entries, err := os.ReadDir(dir)
	if vanished(err) {
		return turns, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading folder of lock: %w", err)
	}
	for _, e := range entries {
		turn, err := strconv.ParseUint(e.Name(), 10, 62)
		if err != nil || strconv.FormatUint(turn, 10) != e.Name() {
			continue
		}
		if !e.Type().IsRegular() {
			turns[turn] = "not a file: " + e.Type().String()
			continue
		}
		content, err := readTurn(filepath.Join(dir, e.Name()))
		if vanished(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading lease file: %w", err)
		}
		turns[turn] = content
	}
	return turns, nil
}

// vanished reports whether err says that a file was removed meanwhile, here or,
// for a network file system, on another host.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESTALE)
}

func readTurn(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // reading loses nothing
	content, err := io.ReadAll(io.LimitReader(f, maxLeaseFile))
	return string(content), err
}

func equalTurns(a, b map[uint64]string) bool { return maps.Equal(a, b) }

// highest returns the highest turn, or 0 when there is none.
func highest(turns map[uint64]string) uint64 {
	var top uint64
	for turn := range turns {
		top = max(top, turn)
	}
	return top
}
