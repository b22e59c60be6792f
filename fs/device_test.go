package fs

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWatchDevice ends a connection, here a pipe, while a request waits and while none does.
func TestWatchDevice(t *testing.T) {
	for _, waiting := range []bool{true, false} {
		var pipe [2]int
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		w := &waits{some: make(chan struct{}, 1)}
		ctx, stop := context.WithCancel(t.Context())
		gone, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			watchDevice(ctx, pipe[0], w, func() { close(gone) })
		}()
		w.begin()
		w.begin()
		w.end()
		if !waiting {
			w.end()
			stop()
			<-ended
		}
		unix.Close(pipe[1])
		if waiting {
			<-gone
			<-ended
		}
		stop()
		if _, err := unix.FcntlInt(uintptr(pipe[0]), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("the descriptor was left open: %v", err)
		}
		select {
		case <-gone:
			if !waiting {
				t.Error("told of an end that nobody waits for")
			}
		default:
		}
	}
}
