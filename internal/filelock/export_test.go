package filelock

import (
	"os"
	"time"
)

// SetCreate replaces what makes generations for a Folder that nobody uses yet.
// It is given what does it otherwise.
func SetCreate(f *Folder, by func(path string, create func(string) (*os.File, error)) (*os.File, error)) {
	f.create = func(path string) (*os.File, error) { return by(path, create) }
}

// Dir returns the folder of the named lock.
func Dir(name string) string { return folderName(name) }

// DelayAfter is how long a wait so long waits for its next look, before chance.
func DelayAfter(waited time.Duration) time.Duration { return delayAfter(waited) }

// SetLink has f give files their names by other means than os.Link.
func SetLink(f *Folder, by func(old, name string) error) { f.link = by }
