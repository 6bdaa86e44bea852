// Package guard calls code of others that may panic or end its goroutine.
package guard

import "fmt"

// Call calls f on a goroutine of its own, which run starts, and returns where its
// answer will be. A panic is an error, and so is an end of the goroutine; who says
// whose code it is. A nil run starts the goroutine plainly.
func Call(run func(func()), who string, f func() error) <-chan error {
	answer := make(chan error, 1)
	call := func() {
		err := fmt.Errorf("%s ended the goroutine that called it", who)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("%s panicked: %v", who, p)
			}
			answer <- err
		}()
		err = f()
	}
	if run == nil {
		go call()
	} else {
		run(call)
	}
	return answer
}
