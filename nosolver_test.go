package certwright_test

import (
	"context"

	. "github.com/certwright/certwright"
)

// noSolver solves what is not looked at.
type noSolver struct{}

func (noSolver) Present(context.Context, Challenge) error { return nil }
func (noSolver) CleanUp(context.Context, Challenge) error { return nil }
