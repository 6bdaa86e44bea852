package guard_test

import (
	"errors"
	"runtime"
	"sync"
	"testing"

	"github.com/certwright/certwright/internal/guard"
)

func TestCall(t *testing.T) {
	var group sync.WaitGroup
	failed := errors.New("failed")
	for _, tt := range []struct {
		f    func() error
		want string
	}{
		{func() error { return nil }, ""},
		{func() error { return failed }, "failed"},
		{func() error { panic("boom") }, "the plugin panicked: boom"},
		{func() error { runtime.Goexit(); return nil }, "the plugin ended the goroutine that called it"},
	} {
		for _, run := range []func(func()){nil, group.Go} {
			got := ""
			if err := <-guard.Call(run, "the plugin", tt.f); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		}
	}
	group.Wait()
}
