package node

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/holdfastfs/holdfast/fs"
	"github.com/holdfastfs/holdfast/uploader"
	"github.com/holdfastfs/holdfast/uploader/dataset"
)

// xattrFileID is where a staged file has its ID.
const xattrFileID = "user.holdfast.id"

// leasePatience is how long a file may be busy before the dataset turns to others.
const leasePatience = 50 * time.Millisecond

var (
	_ fs.Uploads      = (*uploadDir)(nil)
	_ dataset.Staging = (*uploadDir)(nil)
)

func setVersion(v fs.Version) dataset.Version {
	return dataset.Version{Bytes: v.Bytes, ModTime: v.ModTime, ChangeTime: v.ChangeTime}
}

// note remembers where a file lies.
func (u *uploadDir) note(f fs.File) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.paths.note(f.ID, f.Path)
}

// follow remembers what a change of a name does to paths.
func (u *uploadDir) follow(c fs.Change) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch c.Kind {
	case fs.Made:
		if c.File.ID != (fs.FileID{}) {
			u.paths.note(c.File.ID, c.Path)
		}
	case fs.Removed:
		u.paths.remove(c.Path)
	case fs.Renamed:
		u.paths.move(c.Path, c.To)
	case fs.Swapped:
		u.paths.swap(c.Path, c.To)
	}
}

// Closed implements fs.Versions.
func (u *uploadDir) Closed(ctx context.Context, f fs.File) error {
	u.note(f)
	u.mu.Lock()
	mounted := u.mount != nil
	u.mu.Unlock()
	if mounted { // Opened came before any change of its bytes, so what is lent still is as it was
		u.n.lender.restamp(ctx, u, f)
	}
	if stays, err := u.withheld.closed(ctx, f); stays || err != nil {
		return err
	}
	defer u.changed()
	return u.set.Told(ctx, dataset.Change{Kind: dataset.Closed, Path: f.Path, File: dataset.FileID(f.ID), Version: setVersion(f.Version)})
}

// Opened implements fs.Versions. What reads the file finds its lease broken.
func (u *uploadDir) Opened(ctx context.Context, f fs.File) error {
	return u.n.lender.reclaim(ctx, u, f)
}

// Leaving implements fs.Versions.
func (u *uploadDir) Leaving(ctx context.Context, f fs.File, keep func(path string) error) error {
	if keep == nil {
		return u.n.lender.reclaim(ctx, u, f)
	}
	return u.n.lender.takeOver(ctx, u, f, keep)
}

// Recorded implements fs.Versions.
func (u *uploadDir) Recorded(ctx context.Context, f fs.File) (fs.Version, bool, error) {
	u.note(f)
	if v, ok := u.withheld.recorded(f.ID); ok {
		return v, true, nil
	}
	v, known, err := u.set.Version(ctx, dataset.FileID(f.ID))
	return fs.Version{Bytes: v.Bytes, ModTime: v.ModTime, ChangeTime: v.ChangeTime}, known, err
}

// Scanned implements fs.Versions.
func (u *uploadDir) Scanned(ctx context.Context) error {
	defer u.changed()
	if err := u.withheld.scanned(ctx); err != nil {
		return err
	}
	u.n.lender.scanned(ctx, u)
	return u.set.Scan(ctx)
}

// Changed implements fs.Names.
func (u *uploadDir) Changed(ctx context.Context, c fs.Change) {
	change := dataset.Change{Kind: dataset.Named, Path: c.Path, To: c.To}
	u.follow(c)
	switch c.Kind {
	case fs.Renamed:
		change.Kind = dataset.Renamed
	case fs.Swapped:
		change.Kind = dataset.Swapped
	case fs.Removed:
		if c.Last {
			u.forget(ctx, c.File.ID)
		} else if c.File.ID != (fs.FileID{}) && c.File.Path != "" {
			u.note(c.File) // by another of its names
		}
	}
	if c.File.ID != (fs.FileID{}) && c.File.Version != (fs.Version{}) {
		u.n.lender.restamp(ctx, u, c.File)
		if held, err := u.withheld.altered(ctx, c.File.ID, c.File.Version); err != nil {
			u.n.log.Error("version of a cancelled upload is lost", "path", path.Join(u.dir, c.Path), "error", err)
		} else if !held {
			change.File, change.Version = dataset.FileID(c.File.ID), setVersion(c.File.Version)
		}
	}
	if c.Replaced != (fs.FileID{}) {
		u.forget(ctx, c.Replaced)
	}
	if err := u.set.Told(ctx, change); err != nil {
		u.n.log.Error("change of an upload directory is lost until it is mounted anew", "path", path.Join(u.dir, c.Path), "error", err)
	}
	u.changed()
}

// forget ends all that is remembered of a file that is gone.
func (u *uploadDir) forget(ctx context.Context, id fs.FileID) {
	if _, err := u.withheld.drop(ctx, id); err != nil {
		u.n.log.Warn("cancelled upload is remembered without its file", "path", u.dir, "error", err)
	}
	u.n.lender.gone(ctx, u, id)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.paths.forget(id)
}

// Status implements fs.States.
func (u *uploadDir) Status(ctx context.Context, id fs.FileID) (fs.Status, error) {
	if u.withheld.has(id) {
		return fs.Status{State: "failed", Err: "cancelled"}, nil
	}
	f, err := u.set.File(ctx, dataset.FileID(id))
	if errors.Is(err, dataset.ErrGone) {
		return fs.Status{State: "created"}, nil
	}
	if err != nil {
		return fs.Status{}, err
	}
	s := fs.Status{CID: f.CID, State: "uploading", Progress: fmt.Sprintf("%d of %d blocks", f.Placed, f.Blocks)}
	full := errors.Is(f.Err, dataset.ErrFull)
	if f.Err != nil {
		s.Err = f.Err.Error()
	}
	switch {
	case f.Err != nil && !full:
		s.State = "failed"
	case !f.CID.Defined():
		s.State, s.Progress = "created", ""
	case full:
	default:
		news := u.sink.news.of(u.sink, f.Groups)
		switch {
		case news.State == uploader.Failed:
			s.State, s.Err = "failed", news.Reason
		case news.State != uploader.Uploaded:
			s.Err = news.Reason
		case f.Placed == f.Blocks && !f.Closed:
			s.State = "uploaded"
		}
	}
	return s, nil
}

// Directory implements fs.States.
func (u *uploadDir) Directory(ctx context.Context, p string) (cid.Cid, error) {
	c, err := u.set.Directory(ctx, p)
	return c, goneIsNotFound(err)
}

// Manifest implements fs.States.
func (u *uploadDir) Manifest(ctx context.Context) (cid.Cid, error) {
	s, err := u.set.State(ctx)
	if err == nil && s.Placed.ID == 0 {
		err = fmt.Errorf("nothing was synced yet: %w", fs.ErrNotFound)
	}
	return s.Placed.CID, goneIsNotFound(err)
}

func goneIsNotFound(err error) error {
	if errors.Is(err, dataset.ErrGone) {
		return fmt.Errorf("%w: %w", fs.ErrNotFound, err)
	}
	return err
}

// leased is a staged file under a read lease.
type leased struct {
	*fs.Lease
	in         io.Reader
	read, sent int64 // bytes: read, and of those sent to the disk
}

// flowBytes is how much of a staged file is read before it is sent to the disk.
const flowBytes = 8 << 20

// Read implements dataset.StagedFile. What was read is hashed next: meanwhile the disk may take it, as whatever is synced
// after the import would wait for that.
func (l *leased) Read(p []byte) (int, error) {
	n, err := l.in.Read(p)
	if l.read += int64(n); l.read-l.sent >= flowBytes {
		_ = unix.SyncFileRange(int(l.Staged.Fd()), l.sent, l.read-l.sent, unix.SYNC_FILE_RANGE_WRITE) // a hint only
		l.sent = l.read
	}
	return n, err
}

// Stat implements dataset.StagedFile. A broken lease looks like another version.
func (l *leased) Stat() (dataset.FileStat, error) {
	st, err := l.Staged.Stat()
	if err != nil {
		return dataset.FileStat{}, err
	}
	s := dataset.FileStat{Version: setVersion(l.File.Version), Mode: st.Mode()}
	if errors.Is(l.Check(), fs.ErrChanged) {
		s.ChangeTime++
	}
	return s, nil
}

// Open implements dataset.Staging.
func (u *uploadDir) Open(ctx context.Context, id dataset.FileID) (dataset.StagedFile, error) {
	u.mu.Lock()
	p, known := u.paths.path(fs.FileID(id))
	u.mu.Unlock()
	err := fmt.Errorf("no path of it is known: %w", dataset.ErrGone)
	var f dataset.StagedFile
	if known {
		f, err = u.open(ctx, id, p)
	}
	if errors.Is(err, dataset.ErrGone) && !u.withheld.has(fs.FileID(id)) {
		p, f, err = u.openElsewhere(ctx, id, p, err)
	}
	if err != nil {
		return nil, err
	}
	return u.n.lender.importing(u, fs.FileID(id), p, f), nil
}

// openElsewhere opens a file by a name that the dataset knows of: a hard link whose other name, the one known here, was
// taken by another file.
func (u *uploadDir) openElsewhere(ctx context.Context, id dataset.FileID, not string, gone error) (string, dataset.StagedFile, error) {
	all, err := u.set.Paths(ctx, id)
	if err != nil {
		return "", nil, err
	}
	for _, p := range all {
		if p == not {
			continue
		}
		f, err := u.open(ctx, id, p)
		if errors.Is(err, dataset.ErrGone) {
			continue
		}
		u.note(fs.File{ID: fs.FileID(id), Path: p})
		return p, f, err
	}
	return "", nil, gone
}

// open opens a file at a path, where it must be.
func (u *uploadDir) open(ctx context.Context, id dataset.FileID, p string) (dataset.StagedFile, error) {
	u.mu.Lock()
	m, left := u.mount, u.left
	u.mu.Unlock()
	switch {
	case u.withheld.has(fs.FileID(id)):
		return nil, dataset.ErrGone
	case left:
		return u.openResting(ctx, fs.FileID(id), p)
	case m == nil:
		return nil, dataset.ErrBusy
	}
	patient, cancel := context.WithTimeout(ctx, leasePatience)
	defer cancel()
	l, err := m.Lease(patient, fs.FileID(id), p)
	switch {
	case err == nil:
		return &leased{Lease: l, in: io.NewSectionReader(l.Staged, 0, 1<<62)}, nil
	case errors.Is(err, fs.ErrEvicted):
		return u.openResting(ctx, fs.FileID(id), p)
	case errors.Is(err, fs.ErrNotFound):
		return nil, fmt.Errorf("%w: %w", dataset.ErrGone, err)
	case ctx.Err() == nil && patient.Err() != nil, errors.Is(err, fs.ErrBusy):
		return nil, fmt.Errorf("%w: %w", dataset.ErrBusy, err)
	}
	return nil, err
}

// Stat implements dataset.Staging.
func (u *uploadDir) Stat(_ context.Context, p string) (dataset.Entry, error) {
	dir, err := u.root.Open(path.Dir(name(p)))
	if err != nil {
		return dataset.Entry{}, staged(err)
	}
	defer dir.Close()
	e, _, err := statAt(dir, path.Base(name(p)))
	return u.veiled(e), err
}

// veiled makes a file whose upload was cancelled look like what is never uploaded.
func (u *uploadDir) veiled(e dataset.Entry) dataset.Entry {
	if e.Kind == dataset.Regular && u.withheld.has(fs.FileID(e.ID)) {
		e.Kind = dataset.Special
	}
	return e
}

// List implements dataset.Staging.
func (u *uploadDir) List(_ context.Context, p string, yield func(dataset.Entry) error) error {
	return u.list(p, func(e dataset.Entry, _ *unix.Statx_t) error { return yield(u.veiled(e)) })
}

func (u *uploadDir) list(p string, yield func(dataset.Entry, *unix.Statx_t) error) error {
	dir, err := u.root.Open(name(p))
	if err != nil {
		return staged(err)
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1024)
		for _, n := range names {
			e, st, eerr := statAt(dir, n)
			if errors.Is(eerr, dataset.ErrGone) {
				continue // since it was listed
			}
			if eerr == nil {
				eerr = yield(e, &st)
			}
			if eerr != nil {
				return eerr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return staged(err)
		}
	}
}

func name(p string) string {
	if p == "" {
		return "."
	}
	return p
}

func staged(err error) error {
	if errors.Is(err, iofs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("%w: %w", dataset.ErrGone, err)
	}
	return err
}

// statAt tells what a name in an open directory is.
func statAt(dir *os.File, name string) (e dataset.Entry, st unix.Statx_t, err error) {
	err = unix.Statx(int(dir.Fd()), name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	if err != nil {
		return e, st, staged(err)
	}
	e = dataset.Entry{Name: name, Mode: os.FileMode(st.Mode) & os.ModePerm, ModTime: st.Mtime.Sec*1e9 + int64(st.Mtime.Nsec)}
	for bit, flag := range map[uint16]os.FileMode{unix.S_ISUID: os.ModeSetuid, unix.S_ISGID: os.ModeSetgid, unix.S_ISVTX: os.ModeSticky} {
		if st.Mode&bit != 0 {
			e.Mode |= flag
		}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Kind = dataset.Regular
		at := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
		if n, err := unix.Lgetxattr(at, xattrFileID, e.ID[:]); err != nil || n != len(e.ID) {
			e.ID = dataset.FileID{} // not yet given
		}
	case unix.S_IFDIR:
		e.Kind, e.ID = dataset.Directory, directoryID(&st)
	case unix.S_IFLNK:
		e.Kind = dataset.Symlink
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
		if err != nil {
			return e, st, staged(err)
		}
		e.Target = string(buf[:n])
	}
	return e, st, nil
}

// directoryID names a directory as long as it exists: by its inode, and when that was made.
func directoryID(st *unix.Statx_t) (id dataset.FileID) {
	var b [24]byte
	binary.LittleEndian.PutUint64(b[:], st.Ino)
	binary.LittleEndian.PutUint64(b[8:], uint64(st.Btime.Sec))
	binary.LittleEndian.PutUint64(b[16:], uint64(st.Btime.Nsec))
	sum := sha256.Sum256(b[:])
	copy(id[:], sum[:])
	return id
}
