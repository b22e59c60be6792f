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
	for _, e := range errnos {
		if errors.Is(err, e.is) {
			return e.errno, true
		}
	}
	return syscall.EIO, false
}
