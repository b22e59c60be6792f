package api

import (
	"archive/tar"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/holdfastfs/holdfast/cmd/internal/hint"
)

// PaxPreserved is the PAX record of a tar entry whose mode ("m") and time ("t") were preserved; others get what a new file
// gets.
const PaxPreserved = "HOLDFAST.preserved"

// UnpackOptions is how [Unpack] writes.
type UnpackOptions struct {
	Force    bool            // replace files that are there, write into a directory that is there
	Progress func(bytes int) // told of file bytes as they go; may be nil
}

// Unpack writes the one file or tree of a tar stream, whose top entry is ".", to out. It is written beside out and
// takes its name when it is whole, so that a failure leaves nothing; with Force into a directory that exists, files are
// replaced one by one. No entry leads out of out, whatever its name, or the symbolic links before it. Setuid
// and setgid bits are dropped: who made the content is not who unpacks it.
func Unpack(r io.Reader, out string, opts UnpackOptions) error {
	out = filepath.Clean(out)
	if err := CheckOutput(out, opts.Force); err != nil {
		return err
	}
	there, _ := os.Lstat(out)
	if err := os.MkdirAll(filepath.Dir(out), 0o777); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	archive := tar.NewReader(r)
	top, err := archive.Next()
	if err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	u := &unpacker{raw: r, in: archive, opts: opts, buf: make([]byte, streamBytes), made: make(map[string]bool)}
	isDir := top.Typeflag == tar.TypeDir
	switch {
	case there != nil && there.IsDir() && isDir:
		return u.merge(top, out)
	case there != nil && there.IsDir() != isDir:
		return fmt.Errorf("write %s: one is a directory, the other is not", out)
	}
	return u.fresh(top, out)
}

// CheckOutput fails where [Unpack] would before it has read anything.
func CheckOutput(out string, force bool) error {
	_, err := os.Lstat(out)
	if err == nil && !force {
		return hint.Add(fmt.Errorf("write %s: it exists", out), "name another place with -o, or replace it with --force")
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write %s: %w", out, cause(err))
	}
	return nil
}

type unpacker struct {
	raw  io.Reader
	in   *tar.Reader
	opts UnpackOptions
	buf  []byte
	dirs []dirMeta       // to get their modes and times when all is in them
	made map[string]bool // directories that entries may lie in: those that came before
}

// dirMeta is what a directory gets at the end.
type dirMeta struct {
	name string
	h    *tar.Header
}

// fresh writes beside out and renames.
func (u *unpacker) fresh(top *tar.Header, out string) (err error) {
	tmp := filepath.Join(filepath.Dir(out), "."+filepath.Base(out)+".holdfast-"+rand.Text()[:8])
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return fmt.Errorf("write %s: %w", out, cause(err))
	}
	defer func() { err = errors.Join(err, removeTree(tmp)) }()
	root, err := os.OpenRoot(tmp)
	if err != nil {
		return fmt.Errorf("write %s: %w", out, cause(err))
	}
	defer root.Close()
	if err := u.all(root, top, "content", false); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	if err := os.Rename(filepath.Join(tmp, "content"), out); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	return nil
}

// merge writes into the directory out.
func (u *unpacker) merge(top *tar.Header, out string) error {
	root, err := os.OpenRoot(out)
	if err != nil {
		return fmt.Errorf("write %s: %w", out, cause(err))
	}
	defer root.Close()
	if err := u.all(root, top, ".", true); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	return nil
}

// all writes the top entry as name, everything else below it, then the directories' modes and times.
func (u *unpacker) all(root *os.Root, top *tar.Header, name string, replace bool) error {
	for h := top; ; {
		at, err := u.place(h.Name, name)
		if err != nil {
			return err
		}
		if err := u.entry(root, h, at, replace); err != nil {
			return err
		}
		h, err = u.in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, u.raw); err != nil { // its end says whether all was sent
		return err
	}
	for i := len(u.dirs) - 1; i >= 0; i-- {
		if err := u.finish(root, u.dirs[i].h, u.dirs[i].name); err != nil {
			return err
		}
	}
	return nil
}

// place says where an entry goes, or why it may not.
func (u *unpacker) place(name, top string) (string, error) {
	name = strings.TrimSuffix(name, "/")
	if !filepath.IsLocal(name) || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("entry %q leads out of it", short(name))
	}
	return filepath.Join(top, name), nil
}

func (u *unpacker) entry(root *os.Root, h *tar.Header, name string, replace bool) error {
	if len(u.made) > 0 && !u.made[filepath.Dir(name)] {
		return fmt.Errorf("entry %q lies in no directory of it", short(h.Name))
	}
	switch h.Typeflag {
	case tar.TypeDir:
		err := root.Mkdir(name, 0o777)
		if errors.Is(err, fs.ErrExist) && replace {
			err = checkDir(root, name)
		}
		u.dirs = append(u.dirs, dirMeta{name, h})
		u.made[name] = true
		return err
	case tar.TypeSymlink:
		if replace {
			root.Remove(name)
		}
		if err := root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return u.finish(root, h, name)
	case tar.TypeReg:
		return u.file(root, h, name, replace)
	}
	return fmt.Errorf("entry %q is of a kind that is not known", short(h.Name))
}

func checkDir(root *os.Root, name string) error {
	st, err := root.Lstat(name)
	if err == nil && !st.IsDir() {
		return fmt.Errorf("%s is there and no directory", name)
	}
	return err
}

// file writes a regular file; an old one is replaced when the new one is whole.
func (u *unpacker) file(root *os.Root, h *tar.Header, name string, replace bool) error {
	tmp := name
	if replace {
		tmp = filepath.Join(filepath.Dir(name), ".holdfast-"+rand.Text()[:8])
	}
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	if err = allocate(f, h.Size); err == nil {
		err = u.copy(f)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = u.finish(root, h, tmp)
	}
	if err == nil && replace {
		err = root.Rename(tmp, name)
	}
	if err != nil && replace {
		root.Remove(tmp)
	}
	return err
}

// allocateFrom is the length from which a file gets its space at once.
const allocateFrom = 1 << 20

// allocate gives a file the space it will need: a full disk is told before anything is fetched for it, and writing is
// cheaper where the disk is busy. A file system that can't is no error.
func allocate(f *os.File, bytes int64) error {
	if bytes < allocateFrom {
		return nil
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = unix.Fallocate(int(fd), 0, 0, bytes) })
	if errors.Is(failed, unix.ENOSPC) || errors.Is(failed, unix.EDQUOT) || errors.Is(failed, unix.EFBIG) {
		return fmt.Errorf("%s needed: %w", humanize.IBytes(uint64(bytes)), failed)
	}
	return err
}

func (u *unpacker) copy(w io.Writer) error {
	for {
		n, err := io.ReadFull(u.in, u.buf)
		if n > 0 {
			if _, err := w.Write(u.buf[:n]); err != nil {
				return err
			}
			if u.opts.Progress != nil {
				u.opts.Progress(n)
			}
		}
		if errors.Is(err, io.EOF) || n > 0 && n < len(u.buf) && errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// finish gives an entry its preserved mode and time.
func (u *unpacker) finish(root *os.Root, h *tar.Header, name string) error {
	if h.PAXRecords[PaxPreserved] == "" {
		return nil
	}
	if h.Typeflag != tar.TypeSymlink && strings.Contains(h.PAXRecords[PaxPreserved], "m") {
		if err := root.Chmod(name, fs.FileMode(h.Mode)&fs.ModePerm); err != nil {
			return err
		}
	}
	if !strings.Contains(h.PAXRecords[PaxPreserved], "t") {
		return nil
	}
	return setTime(root, name, h.ModTime)
}

// setTime sets the modification time of name itself, also where it is a symbolic link.
func setTime(root *os.Root, name string, t time.Time) error {
	dir, err := root.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return err
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, ts}
	return unix.UtimesNanoAt(int(dir.Fd()), filepath.Base(name), times, unix.AT_SYMLINK_NOFOLLOW)
}

// removeTree removes also what lies in directories without write permission.
func removeTree(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}
