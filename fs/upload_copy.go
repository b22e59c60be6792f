package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// CopyFileRange copies between two open files within staging.
func (t *uploadTree) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	from, to := t.handles.get(in.FhIn), t.handles.get(in.FhOut)
	if from == nil || to == nil {
		return 0, fuse.Status(syscall.EBADF)
	}
	if t.isStub(from.n) {
		return 0, fuse.Status(syscall.EXDEV) // the kernel copies by reading and writing
	}
	call := func() *call { return t.call(cancel, &in.Caller) }
	n, err := t.copyRange(call, from, to, int64(in.OffIn), int64(in.OffOut), int64(min(in.Len, maxCopy)), int(in.Flags))
	return uint32(n), t.status("copy to", to.n, err)
}

// maxCopy is the most bytes copied by one request: the answer has 32 bits, and the kernel asks again.
const maxCopy = 1 << 30

func (t *uploadTree) copyRange(call func() *call, from, to *uploadHandle, offIn, offOut, size int64, flags int) (int, error) {
	in, err := t.file(from)
	if err != nil {
		return 0, err
	}
	out, err := t.file(to)
	if err != nil {
		return 0, err
	}
	var st unix.Statx_t
	if err := statFd(in, &st); err != nil {
		return 0, err
	}
	size = max(0, min(size, int64(st.Size)-offIn))
	var n int
	err = t.grow(call, to.n, offOut, size, true, func(size int64) error {
		n, err = ignoringEINTR(func() (int, error) { return unix.CopyFileRange(in, &offIn, out, &offOut, int(size), flags) })
		return staging(err)
	})
	return n, err
}
