// Command holdfast mounts content-addressed data as ordinary directories and shares it with peers.
//
// Every command is a client of the process that owns the repo, through [api.Client]. Where no such process
// runs, a command is it for as long as it takes: see session.go. A command is one file here.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := untilSignal(context.Background())
	outliveReaders()
	a := &app{in: os.Stdin, out: &output{file: os.Stdout}, err: os.Stderr, environ: os.LookupEnv}
	code := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// Why a command's context ended.
var (
	errInterrupted = errors.New("interrupted")
	errTerminated  = errors.New("terminated")
)

// outliveReaders makes writing to a pipe that nobody reads an error instead of the end of the process, which may own
// a repo and serve mounts. Children get the usual signal: it is caught, not ignored.
func outliveReaders() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}

// untilSignal returns a context that the first signal to end the process ends; the second is fatal.
func untilSignal(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		signal.Notify(signals, syscall.SIGHUP)
	}
	go func() {
		select {
		case s := <-signals:
			signal.Stop(signals)
			if s == syscall.SIGINT {
				cancel(errInterrupted)
			} else {
				cancel(errTerminated)
			}
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}
