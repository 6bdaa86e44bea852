//go:build !unix

package storagetest

import "errors"

// stop is not to be had here, and the test that needs it is skipped.
func (c *child) stop() error { return errors.ErrUnsupported }
func (c *child) cont() error { return errors.ErrUnsupported }
