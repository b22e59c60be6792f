package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/holdfastfs/holdfast/cmd/internal/hint"
)

// usageError is a command line that can't be understood.
type usageError struct{ err error }

func (u *usageError) Error() string { return u.err.Error() }

func (u *usageError) Unwrap() error { return u.err }

// exitCode decides how the process ends. Nothing else does.
func exitCode(err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errInterrupted), errors.Is(err, errTerminated):
		return 130
	case isReaderGone(err):
		return 128 + int(syscall.SIGPIPE) // as other programs
	case errors.As(err, &usage):
		return 2
	default:
		return 1
	}
}

// report says on w why a command failed: a line, and one more where there is advice.
func report(w io.Writer, err error) {
	if errors.Is(err, errInterrupted) || errors.Is(err, errTerminated) || isReaderGone(err) {
		return
	}
	fmt.Fprintf(w, "holdfast: %s\n", oneLine(err.Error()))
	if h := hint.Of(err); h != "" {
		fmt.Fprintf(w, "  hint: %s\n", oneLine(h))
	}
}

func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// endOf returns why ctx ended where that is what made err, or err.
func endOf(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
