// Package hint carries advice beside an error: what a person can try next. Add it with [Add], read it
// with [Of]. The error's own text, and what errors.Is sees, stay as they were.
package hint

import (
	"errors"
	"fmt"
)

// hinted is an error with a line of advice.
type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }

func (h *hinted) Unwrap() error { return h.err }

// Hint returns the advice; it is what [Of] looks for, so that other error types can carry some too.
func (h *hinted) Hint() string { return h.hint }

// Add returns err with advice. A nil err stays nil, and an err that has advice keeps its own.
func Add(err error, format string, args ...any) error {
	if err == nil || Of(err) != "" {
		return err
	}
	return &hinted{err: err, hint: fmt.Sprintf(format, args...)}
}

// Of returns the advice nearest to the surface of err, or "".
func Of(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}
