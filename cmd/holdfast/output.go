package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
)

// output is standard output. It keeps the first error of writing, which those who print don't look at.
type output struct {
	file *os.File

	mu  sync.Mutex // guards err
	err error
}

// outputError is an error of writing what a command has to say.
type outputError struct{ err error }

func (e *outputError) Error() string { return fmt.Sprintf("write the output: %v", e.err) }

func (e *outputError) Unwrap() error { return e.err }

// Write writes to the file; its errors are an outputError.
func (o *output) Write(p []byte) (int, error) {
	n, err := o.file.Write(p)
	if err == nil {
		return n, nil
	}
	var in *os.PathError
	if errors.As(err, &in) {
		err = in.Err // its name is made up
	}
	err = &outputError{err}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// Fd is the file's descriptor, by which a terminal is known.
func (o *output) Fd() uintptr { return o.file.Fd() }

// failure is the first error of writing.
func (o *output) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// isReaderGone says whether who read the output has seen enough of it.
func isReaderGone(err error) bool {
	var o *outputError
	return errors.As(err, &o) && errors.Is(o, syscall.EPIPE)
}

// say prints a line that nobody has to read: a command that goes on does not fail for it.
func (a *app) say(format string, args ...any) {
	var w io.Writer = a.out
	if o, ok := w.(*output); ok {
		w = o.file
	}
	fmt.Fprintf(w, format, args...)
}
