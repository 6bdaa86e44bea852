package filelock

import "time"

// SetLink replaces os.Link for a Folder that nobody uses yet.
func SetLink(f *Folder, link func(oldname, newname string) error) { f.link = link }

// SetPatience replaces the ten seconds for a Folder that nobody uses yet.
func SetPatience(f *Folder, d time.Duration) { f.patience = d }

// Dir returns the folder of the named lock.
func Dir(name string) string { return folderName(name) }

// DelayAfter is how long a wait so long waits for its next look, before chance.
func DelayAfter(waited time.Duration) time.Duration { return delayAfter(waited) }
