package filelock

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// record is what a generation's file holds: JSON, filled up with blanks, so that
// writing over it leaves nothing of what was there.
type record struct {
	Token string
	TTL   time.Duration
	Host  string `json:",omitempty"` // empty: the kernel's lock says nothing
	Beat  uint64 // changes with each heartbeat
	Free  bool
}

const (
	// recordSize is the length of a generation's file in bytes.
	recordSize = 256

	// tempPrefix begins the names of files that are no generation yet, and
	// tempAge is how long ago one was written whose taker is gone.
	tempPrefix = ".new-"
	tempAge    = 10 * time.Second

	// maxDigits is how long a generation's name can be: what no uint64 overflows.
	maxDigits = 18

	// digestSize is how many bytes of a digest are in the name of a lock's
	// folder, and maxReadable how many of the lock's name.
	digestSize  = 16
	maxReadable = 100
)

func newRecord(ttl time.Duration) record { return record{Token: rand.Text(), TTL: ttl} }

// parse reports false, with a zero record, for what no holder has written, or not
// whole.
func parse(content string) (record, bool) {
	var r record
	err := json.Unmarshal([]byte(content), &r)
	if err != nil || len(content) != recordSize || r.Token == "" || r.TTL < minTTL || r.TTL > maxTTL {
		return record{}, false
	}
	return r, true
}

// overwrite puts r in the place of what the file at path holds.
func overwrite(path string, r record) error {
	content, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("writing lock file %q: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	content = fmt.Appendf(nil, "%-*s\n", recordSize-1, content)
	_, err = f.WriteAt(content, 0)
	return errors.Join(err, f.Close())
}

// readFile reads as much of the file as can matter.
func readFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // reading loses nothing
	return readAll(f)
}

func readAll(f *os.File) (string, error) {
	content, err := io.ReadAll(io.LimitReader(f, 2*recordSize))
	return string(content), err
}

// entry is a generation in the folder of a lock.
type entry struct {
	number  uint64
	regular bool // it is a file
}

// generations returns what is in the folder of a lock. A missing folder has none.
func generations(dir string) ([]entry, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !vanished(err) {
		return nil, err
	}
	var all []entry
	for _, e := range entries {
		n, err := strconv.ParseUint(e.Name(), 10, 64)
		if err == nil && len(e.Name()) <= maxDigits && strconv.FormatUint(n, 10) == e.Name() {
			all = append(all, entry{n, e.Type().IsRegular()})
		}
	}
	return all, nil
}

// highest returns the generation that has the lock. Number 0 is none.
func highest(dir string) (entry, error) {
	all, err := generations(dir)
	var top entry
	for _, e := range all {
		if e.number >= top.number {
			top = e
		}
	}
	return top, err
}

// create makes an empty file that must not exist.
func create(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

func generation(dir string, number uint64) string {
	return filepath.Join(dir, strconv.FormatUint(number, 10))
}

// vanished reports whether err says that a file was removed meanwhile, here or,
// for a network file system, on another host.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESTALE)
}

// folderName returns the name of a lock's folder: a digest of the lock's name,
// which tells it from others on every file system, and what can be read of it.
func folderName(name string) string {
	sum := sha256.Sum256([]byte(name))
	plain := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' || r == '.' {
			return r
		}
		return '_'
	}, name[:min(len(name), maxReadable)])
	return hex.EncodeToString(sum[:digestSize]) + "_" + plain + "_"
}

// isFolderName reports whether folderName may have returned that.
func isFolderName(s string) bool {
	digest, plain, _ := strings.Cut(s, "_")
	_, err := hex.DecodeString(digest)
	return err == nil && len(digest) == 2*digestSize && strings.HasSuffix(plain, "_")
}
