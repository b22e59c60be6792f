package provider

import "golang.org/x/sys/unix"

// Writeback starts the disk on all that was written, without waiting for it.
func (f osFile) Writeback() {
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}
