package blockcache

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Writeback starts the disk on the range without waiting for it, so that a later Sync finds little left.
func (f osFile) Writeback(off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// CopyFrom copies a range of another file to the same place of this one, sharing it where the file system can.
func (f osFile) CopyFrom(src file, off, n int64) error {
	from, ok := src.(osFile)
	for ok && n > 0 {
		in, out := off, off
		m, err := unix.CopyFileRange(int(from.Fd()), &in, int(f.Fd()), &out, int(min(n, copyPart)), 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil || m == 0 {
			break // the plain way tells what is wrong
		}
		off, n = off+int64(m), n-int64(m)
	}
	return copyPlain(f, src, off, n)
}

func (o osFiles) Links(name string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(o.dir, name), &st); err != nil {
		return 0, err
	}
	return uint64(st.Nlink), nil
}

// stampOf tells what an open file is.
func stampOf(f *os.File) (Stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Stamp{}, err
	}
	return Stamp{Bytes: st.Size, ModTime: st.Mtim.Nano(), ChangeTime: st.Ctim.Nano()}, nil
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
