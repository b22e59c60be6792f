package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/holdfastfs/holdfast/fs"
	"github.com/holdfastfs/holdfast/fs/unixfs"
	"github.com/holdfastfs/holdfast/uploader/dataset"
)

// restingFlags open what may be no regular file any more.
const restingFlags = os.O_RDONLY | unix.O_NONBLOCK

// resting is a staged file that is not read under a lease: its directory is not mounted, or its bytes are evicted.
type resting struct {
	*os.File
	in io.Reader
}

// Read implements dataset.StagedFile.
func (r *resting) Read(p []byte) (int, error) { return r.in.Read(p) }

// Stat implements dataset.StagedFile.
func (r *resting) Stat() (dataset.FileStat, error) {
	var st unix.Statx_t
	info, err := r.File.Stat()
	if err == nil {
		err = unix.Statx(int(r.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st)
	}
	if err != nil {
		return dataset.FileStat{}, fmt.Errorf("stat staged file: %w", err)
	}
	_, away := r.in.(*evictedReader)
	return dataset.FileStat{Version: setVersion(versionAt(&st)), Mode: info.Mode(), Away: away}, nil
}

func versionAt(st *unix.Statx_t) fs.Version {
	return fs.Version{Bytes: int64(st.Size), ModTime: st.Mtime.Sec*1e9 + int64(st.Mtime.Nsec), ChangeTime: st.Ctime.Sec*1e9 + int64(st.Ctime.Nsec)}
}

// openResting opens a staged file that is not being written.
func (u *uploadDir) openResting(ctx context.Context, id fs.FileID, p string) (_ dataset.StagedFile, err error) {
	f, err := u.root.OpenFile(p, restingFlags, 0)
	if err != nil {
		return nil, staged(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	var is fs.FileID
	if n, err := unix.Fgetxattr(int(f.Fd()), xattrFileID, is[:]); err != nil || n != len(is) || is != id {
		return nil, fmt.Errorf("%s is another file: %w", p, dataset.ErrGone)
	}
	c, evicted, err := fs.Evicted(f)
	if err != nil {
		return nil, err
	}
	if !evicted {
		return &resting{f, f}, nil
	}
	return &resting{f, &evictedReader{ctx: ctx, u: u, open: func(ctx context.Context) (*unixfs.File, error) {
		node, err := u.reader.Node(ctx, c, c)
		if err != nil {
			return nil, err
		}
		return u.reader.Open(node)
	}}}, nil
}

// evictedReader reads a file's bytes from where they are kept. Most who open it only want to know what it is.
type evictedReader struct {
	ctx  context.Context
	u    *uploadDir
	open func(context.Context) (*unixfs.File, error)
	file *unixfs.File
	off  uint64
}

// Read implements io.Reader.
func (r *evictedReader) Read(p []byte) (n int, err error) {
	ctx, cancel := context.WithTimeout(r.ctx, r.u.n.cfg.Settings.Timeout)
	defer cancel()
	if r.file == nil {
		if r.file, err = r.open(ctx); err != nil {
			return 0, err
		}
	}
	n, err = r.file.ReadAt(ctx, p, r.off)
	r.off += uint64(n)
	return n, err
}
