package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfastfs/holdfast/fs/unixfs"
)

func TestErrno(t *testing.T) {
	lost := func(err error) error { return fmt.Errorf("read: %w", &BlockError{Err: err}) }
	for _, c := range []struct {
		err   error
		errno syscall.Errno
		known bool
	}{
		{nil, 0, true},
		{ErrNotFound, syscall.ENOENT, true},
		{fmt.Errorf("look up x: %w", unixfs.ErrNotFound), syscall.ENOENT, true},
		{unixfs.ErrNotDir, syscall.ENOTDIR, true},
		{unixfs.ErrIsDir, syscall.EISDIR, true},
		{ErrUnavailable, syscall.EIO, true},
		{fmt.Errorf("too few shards: %w", ErrUnavailable), syscall.EIO, true},
		{ErrCorrupt, syscall.EIO, true},
		{unixfs.ErrCorrupt, syscall.EIO, true},
		{context.DeadlineExceeded, syscall.EIO, true},
		{context.Canceled, syscall.EINTR, true},
		{ErrInterrupted, syscall.EINTR, true},
		{ErrReadOnly, syscall.EROFS, true},
		{ErrFull, syscall.ENOSPC, true},
		{ErrBusy, syscall.EBUSY, true},
		{ErrNoAttribute, syscall.ENODATA, true},
		{ErrUnsupported, syscall.EOPNOTSUPP, true},
		{unixfs.ErrUnsupported, syscall.EIO, false},
		{io.ErrUnexpectedEOF, syscall.EIO, false},
		{errors.New("anything"), syscall.EIO, false},
		// A block that is nowhere is no missing name, whatever words its loss comes in.
		{lost(ErrNotFound), syscall.EIO, true},
		{lost(unixfs.ErrNotFound), syscall.EIO, true},
		{lost(errors.New("anything")), syscall.EIO, true},
		{lost(ErrInterrupted), syscall.EINTR, true},
		{fmt.Errorf("%w: %w", ErrInterrupted, lost(ErrUnavailable)), syscall.EINTR, true},
		{fmt.Errorf("%w in time: %w", ErrUnavailable, lost(context.Canceled)), syscall.EIO, true},
	} {
		if errno, known := toErrno(c.err); errno != c.errno || known != c.known {
			t.Errorf("%v: errno %d (%v), known %v; want %d, %v", c.err, errno, errno, known, c.errno, c.known)
		}
	}
}

func TestStatusIsEnding(t *testing.T) {
	status := func(state, thread, shared, blocked, ignored, caught string) string {
		return fmt.Sprintf("Name:\tx\nState:\t%s\nSigPnd:\t%s\nShdPnd:\t%s\nSigBlk:\t%s\nSigIgn:\t%s\nSigCgt:\t%s\n",
			state, thread, shared, blocked, ignored, caught)
	}
	bit := func(s ...syscall.Signal) string { return fmt.Sprintf("%016x", uint64(signalSet(s...))) }
	none, all := bit(), strings.Repeat("f", 16)
	for _, c := range []struct {
		what   string
		status string
		want   bool
	}{
		{"nothing pending", status("D (disk sleep)", none, none, none, none, all), false},
		{"killed", status("D", bit(syscall.SIGKILL), none, none, none, all), true},
		{"interrupted, not handled", status("D", bit(syscall.SIGKILL), bit(syscall.SIGINT), none, none, none), true},
		{"interrupted, handled", status("D", none, bit(syscall.SIGINT), none, none, all), true},
		{"interrupted, ignored", status("D", none, bit(syscall.SIGINT), none, bit(syscall.SIGINT), none), false},
		{"interrupted, blocked", status("D", none, bit(syscall.SIGINT), bit(syscall.SIGINT), none, none), false},
		{"Go's preemption", status("D", bit(syscall.SIGURG), none, none, none, all), false},
		{"a child ended", status("D", none, bit(syscall.SIGCHLD), none, none, none), false},
		{"an alarm, handled", status("D", none, bit(syscall.SIGALRM), none, none, bit(syscall.SIGALRM)), false},
		{"an alarm that ends it", status("D", none, bit(syscall.SIGALRM), none, none, none), true},
		{"stopped", status("D", none, bit(syscall.SIGTSTP), none, none, none), false},
		{"a zombie", status("Z (zombie)", none, none, none, none, none), true},
	} {
		if got := statusIsEnding([]byte(c.status)); got != c.want {
			t.Errorf("%s: ending %v, want %v", c.what, got, c.want)
		}
	}
	if callerIsEnding(uint32(syscall.Gettid())) {
		t.Error("this thread counts as ending")
	}
	if !callerIsEnding(0) || !callerIsEnding(1<<31-1) {
		t.Error("a caller that nobody sees does not count as ending")
	}
}
