package blockcache

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Writeback starts the disk on the range without waiting for it, so that a later Sync finds little left.
func (f osFile) Writeback(off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}

func (o osFiles) Free() (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(o.dir, &st); err != nil {
		return 0, err
	}
	if st.Blocks == 0 {
		return 0, errors.New("the file system does not tell its size")
	}
	return st.Bavail * uint64(st.Bsize), nil
}
