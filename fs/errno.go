package fs

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/holdfastfs/holdfast/fs/unixfs"
)

// What can go wrong, as the kernel has to hear it. Neighbours' errors are wrapped in these before they come here.
var (
	ErrNotFound    = errors.New("no such name")
	ErrUnavailable = errors.New("block unavailable")
	ErrCorrupt     = errors.New("content is corrupt")
	ErrReadOnly    = errors.New("read-only file system")
	ErrFull        = errors.New("no room left")
	ErrBusy        = errors.New("mount is busy")
	ErrInterrupted = errors.New("interrupted")
	ErrNoAttribute = errors.New("no such attribute")
	ErrUnsupported = errors.New("not supported")
	ErrNotMounted  = errors.New("not a holdfast mount")
	ErrChanged     = errors.New("file has changed")
	ErrEvicted     = errors.New("file is not staged")

	errShutdown = errors.New("mount is ending")
)

// BlockError tells which block a read wanted and did not get. The kernel hears EIO.
type BlockError struct {
	Want unixfs.Want
	Err  error
}

// Error names the block, where it lies if that is known, and why it is missing.
func (e *BlockError) Error() string {
	if e.Want.Place.File.Defined() {
		return fmt.Sprintf("get block %s (byte %d of file %s): %v", e.Want.CID, e.Want.Place.Offset, e.Want.Place.File, e.Err)
	}
	return fmt.Sprintf("get block %s: %v", e.Want.CID, e.Err)
}

// Unwrap gives the reason.
func (e *BlockError) Unwrap() error { return e.Err }

// stagingError is what the staging directory's file system said.
type stagingError struct{ errno syscall.Errno }

func (e stagingError) Error() string { return e.errno.Error() }

// Is lets errors.Is find both the errno and the room's own sentinel of the same meaning.
func (e stagingError) Is(target error) bool {
	return target == e.errno || target == ErrNotFound && e.errno == syscall.ENOENT
}

// staging marks an error of a system call on the staging directory, whose errno the kernel gets to hear.
func staging(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return stagingError{errno}
	}
	return err
}

// stagingErrno is what the kernel is told in place of an errno of staging: some mean something else to it, or to the
// program that asked.
func stagingErrno(errno syscall.Errno) syscall.Errno {
	switch errno {
	case syscall.ENOSYS: // the kernel would never ask again
		return syscall.EOPNOTSUPP
	case syscall.EDQUOT:
		return syscall.ENOSPC
	case syscall.EMFILE, syscall.ENFILE, syscall.EBADF: // of this process, not of the caller's
		return syscall.EIO
	case syscall.EAGAIN: // somebody else's lease on the staged file
		return syscall.EBUSY
	}
	return errno
}

// errnos is read from the top; the first sentinel that an error is decides.
var errnos = []struct {
	is    error
	errno syscall.Errno
}{
	{ErrInterrupted, syscall.EINTR},
	{ErrUnavailable, syscall.EIO},
	{ErrCorrupt, syscall.EIO},
	{unixfs.ErrCorrupt, syscall.EIO},
	{context.DeadlineExceeded, syscall.EIO},
	{context.Canceled, syscall.EINTR},
	{ErrNotFound, syscall.ENOENT},
	{unixfs.ErrNotFound, syscall.ENOENT},
	{unixfs.ErrNotDir, syscall.ENOTDIR},
	{unixfs.ErrIsDir, syscall.EISDIR},
	{ErrReadOnly, syscall.EROFS},
	{ErrFull, syscall.ENOSPC},
	{ErrBusy, syscall.EBUSY},
	{ErrChanged, syscall.EBUSY},
	{ErrEvicted, syscall.EBUSY},
	{ErrNoAttribute, syscall.ENODATA},
	{ErrUnsupported, syscall.EOPNOTSUPP},
}

// toErrno decides which errno an error is to the kernel: the only place that does. A lost block is never "no such
// file", whatever its reason says. What no rule knows is EIO; known tells whether a rule was found.
func toErrno(err error) (errno syscall.Errno, known bool) {
	if err == nil {
		return 0, true
	}
	var block *BlockError
	if errors.As(err, &block) && !errors.Is(err, ErrInterrupted) && !errors.Is(err, context.Canceled) {
		return syscall.EIO, true
	}
	var local stagingError
	if errors.As(err, &local) {
		return stagingErrno(local.errno), true
	}
	for _, e := range errnos {
		if errors.Is(err, e.is) {
			return e.errno, true
		}
	}
	return syscall.EIO, false
}
