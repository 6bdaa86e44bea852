//go:build unix

package storagetest

import "syscall"

// stop halts the process; cont lets it go on.
func (c *child) stop() error { return c.cmd.Process.Signal(syscall.SIGSTOP) }
func (c *child) cont() error { return c.cmd.Process.Signal(syscall.SIGCONT) }
