package store

import (
	"fmt"
	"runtime/debug"
)

// corrupt wraps a cause into ErrCorrupt, with what to do.
func corrupt(cause error) error {
	return fmt.Errorf("%w (%w): move it away and restore a backup, or start afresh and apply the last good policy", ErrCorrupt, cause)
}

// guard runs fn and turns a panic into ErrCorrupt: bbolt panics, or touches
// memory behind a cut file, where pages are not what it has written. The
// agent must say so in one line and not die of it.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = corrupt(fmt.Errorf("%v", p))
		}
	}()
	return fn()
}
