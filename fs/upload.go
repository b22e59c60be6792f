package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"
)

// Upload is an upload directory that this process serves.
type Upload struct {
	*Mounted
	tree *uploadTree
}

// MountUpload mounts the staging directory cfg.Staging on dir, for reading and writing. It scans staging first, and
// returns when the mount answers. A dead mount of ours at dir is removed. This process must not use the mount itself.
func MountUpload(ctx context.Context, dir string, cfg UploadConfig) (*Upload, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	name, file, err := prepareMountPoint(ctx, dir)
	if err != nil {
		return nil, err
	}
	if file {
		return nil, fmt.Errorf("mount %s: an upload directory needs a directory", dir)
	}
	t, err := openStaging(cfg, name)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	t.startClosings()
	m, err := t.mount(ctx, name)
	if err != nil {
		t.finish()
		return nil, err
	}
	return &Upload{Mounted: m, tree: t}, nil
}

// mount scans staging and begins to serve.
func (t *uploadTree) mount(ctx context.Context, dir string) (*Mounted, error) {
	if err := t.rescan(ctx); err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	fd, err := openDevice(ctx, mountRequest{dir: dir, fsName: t.cfg.FsName, allowOther: t.cfg.AllowOther, writable: true,
		device: "/dev/fuse", helpers: helperPaths})
	if err != nil {
		return nil, err
	}
	m, err := serve(ctx, dir, t, t.log, fd, fuse.MountOptions{
		ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_ASYNC_DIO,
	})
	if err != nil {
		return nil, err
	}
	if !t.cfg.NoPassthrough {
		t.through.probe(m.server, t.log)
	}
	raiseReadahead(dir, t.log)
	return m, nil
}

// openStaging opens the staging directory and finds out whether it is fit for the purpose.
func openStaging(cfg UploadConfig, dir string) (*uploadTree, error) {
	real, err := filepath.EvalSymlinks(cfg.Staging)
	if err != nil {
		return nil, fmt.Errorf("staging directory: %w", err)
	}
	if within(real, dir) || within(dir, real) {
		return nil, fmt.Errorf("staging directory %s and the mount point lie in each other", cfg.Staging)
	}
	root, err := unix.Open(real, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("staging directory %s: %w", cfg.Staging, err)
	}
	proc, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(root)
		return nil, fmt.Errorf("open /proc/self/fd: %w", err)
	}
	table, err := newStagedTable(root, proc, maxDescriptors())
	if err == nil {
		err = claim(root)
	}
	if err != nil {
		unix.Close(root)
		unix.Close(proc)
		return nil, fmt.Errorf("staging directory %s: %w", cfg.Staging, err)
	}
	return newUploadTree(cfg, table, uint32(os.Geteuid()), uint32(os.Getegid())), nil
}

// within tells whether path is dir or lies in it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// claim makes sure that nobody else serves the directory, as long as this process has it open, and that files in it
// can have attributes.
func claim(root int) error {
	if err := unix.Flock(root, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("%w: another mount uses it", ErrBusy)
		}
		return err
	}
	const probe = xattrOurs + "probe"
	if err := unix.Fsetxattr(root, probe, []byte("x"), 0); err != nil {
		return fmt.Errorf("its file system gives files no attributes: %w", err)
	}
	return unix.Fremovexattr(root, probe)
}

// maxDescriptors is how many descriptors may be kept for inodes that the kernel knows: a quarter of what this process
// may have, as open files need theirs.
func maxDescriptors() int {
	const most = 16 << 10
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 256
	}
	return int(min(most, limit.Cur/4))
}

// Lease opens the staged bytes of a file for reading under a read lease. It waits until nobody has the file open for
// writing, or mapped so. The path is where the file was last told to be; an error that wraps ErrNotFound means that
// it is somewhere else by now, or gone; ErrEvicted that it has no staged bytes. The caller closes the lease.
func (u *Upload) Lease(ctx context.Context, id FileID, path string) (*Lease, error) {
	return u.tree.lease(ctx, id, path)
}

// Evict replaces the staged bytes of f, which must have been uploaded as c, by a stub; its size and times stay, and it
// is read from Blocks from now on. It keeps its inode, so all hard links are served. The error wraps ErrBusy while
// anybody has the file open or mapped, ErrChanged if it is not the version in f any more, ErrEvicted if that was done
// before. Names.Changed tells the version that it has then.
func (u *Upload) Evict(ctx context.Context, f File, c cid.Cid) error { return u.tree.evict(ctx, f, c) }

// Settle returns when every file that was closed before the call has been reported. It does not wait for files that
// stay open or mapped, or wait for their rename, beyond a second.
func (u *Upload) Settle(ctx context.Context) error { return u.tree.settled(ctx) }

// EndWaits has the files that were closed under temporary names, and wait for their rename, count as complete now. They
// are reported when it returns, or will be as Settle says.
func (u *Upload) EndWaits() { u.tree.endWaits() }

// Staged tells the bytes that staged files take on the disk, as last measured, and the quota, 0 for none.
func (u *Upload) Staged() (used, quota int64) { return u.tree.quota.measured(), u.tree.quota.limit }
