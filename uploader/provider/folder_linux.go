package provider

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// alignBytes is what direct writes are aligned to, in memory and in the file: the most that disks ask for.
const alignBytes = 4 << 10

// alignedBuffer returns n bytes that can be written directly.
func alignedBuffer(n int) []byte {
	b := make([]byte, n+alignBytes)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (alignBytes - 1)
	return b[skip : skip+n : skip+n]
}

// osFile is an open file of the real folder.
type osFile struct {
	*os.File

	mu      sync.Mutex // guards what follows
	direct  *os.File   // the same file past the page cache; nil until it is needed
	refused bool       // the file system has no direct writes
	cached  bool       // something was written through the page cache
}

// WriteAt writes whole pages directly, and the rest through the page cache.
func (f *osFile) WriteAt(b []byte, off int64) (int, error) {
	whole := len(b) &^ (alignBytes - 1)
	if off%alignBytes != 0 || uintptr(unsafe.Pointer(unsafe.SliceData(b)))%alignBytes != 0 || whole == 0 {
		return f.writeCached(b, off)
	}
	d := f.openDirect()
	if d == nil {
		return f.writeCached(b, off)
	}
	n, err := d.WriteAt(b[:whole], off)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) { // not for this file, or this alignment
		f.mu.Lock()
		f.refused = true
		f.mu.Unlock()
		return f.writeCached(b, off)
	}
	if err != nil || whole == len(b) {
		return n, err
	}
	m, err := f.writeCached(b[whole:], off+int64(whole))
	return n + m, err
}

func (f *osFile) writeCached(b []byte, off int64) (int, error) {
	f.mu.Lock()
	f.cached = true
	f.mu.Unlock()
	return f.File.WriteAt(b, off)
}

// openDirect returns the file for direct writes, nil where there are none.
func (f *osFile) openDirect() *os.File {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.direct != nil || f.refused {
		return f.direct
	}
	// By descriptor: the name may be another's by now.
	d, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil { // no such mode, no /proc, too many files: the page cache does as well
		f.refused = true
		return nil
	}
	f.direct = d
	return d
}

// Writeback starts the disk on what was written through the page cache, without waiting for it.
func (f *osFile) Writeback() {
	f.mu.Lock()
	cached := f.cached
	f.mu.Unlock()
	if cached {
		_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
}

// Close closes both.
func (f *osFile) Close() error {
	f.mu.Lock()
	d := f.direct
	f.direct, f.refused = nil, true
	f.mu.Unlock()
	err := f.File.Close()
	if d != nil {
		err = errors.Join(err, d.Close())
	}
	return err
}
