package api

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"unicode/utf8"
)

// ErrStrict says that something was met that can't be added, and nothing may be left out.
var ErrStrict = errors.New("can't be added")

var errGone = errors.New("it is gone")

// PackOptions is how [Pack] treats what it meets.
type PackOptions struct {
	Strict   bool                         // fail on what can't be added
	Skipped  func(path string, why error) // told of what was left out; not nil
	Progress func(bytes int)              // told of file bytes as they go; may be nil
	Lane     *FileLane                    // for large files, where the node can read them; may be nil
}

// packBytes is how much of the stream goes on at once: small files cost more by their number than by their bytes.
const packBytes = 256 << 10

// Pack writes files and trees as one tar stream: the i-th path is the entry "i", what lies below it "i/name".
// Symbolic links are followed where they are a path itself, and kept below. Pipes, sockets, devices and names
// that UnixFS can't hold, and what goes away meanwhile, are left out, unless a path itself is one.
func Pack(ctx context.Context, w io.Writer, paths []string, opts PackOptions) error {
	out := bufio.NewWriterSize(w, packBytes)
	p := &packer{ctx: ctx, out: out, tar: tar.NewWriter(out), opts: opts, buf: make([]byte, streamBytes)}
	for i, path := range paths {
		st, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("add %s: %w", path, cause(err))
		}
		if why := unfit(path, st); why != nil {
			return fmt.Errorf("add %s: %w", path, why)
		}
		if err := p.add(path, strconv.Itoa(i), st); err != nil {
			return err
		}
	}
	if err := errors.Join(p.tar.Close(), out.Flush()); err != nil {
		return fmt.Errorf("add: %w", err)
	}
	return nil
}

type packer struct {
	ctx  context.Context
	out  *bufio.Writer
	tar  *tar.Writer // into out
	opts PackOptions
	buf  []byte
}

// add writes path and what is below it under name.
func (p *packer) add(path, name string, st fs.FileInfo) error {
	if err := p.ctx.Err(); err != nil {
		return context.Cause(p.ctx)
	}
	h := &tar.Header{Name: name, Mode: int64(unixMode(st.Mode())), ModTime: st.ModTime(), Format: tar.FormatPAX}
	switch st.Mode().Type() {
	case fs.ModeDir:
		entries, err := os.ReadDir(path)
		if err != nil {
			return fmt.Errorf("add %s: %w", path, cause(err))
		}
		h.Typeflag = tar.TypeDir
		if err := p.header(path, h); err != nil {
			return err
		}
		return p.children(path, name, entries)
	case fs.ModeSymlink:
		target, err := os.Readlink(path)
		if err != nil {
			return fmt.Errorf("add %s: %w", path, cause(err))
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
		return p.header(path, h)
	default:
		h.Typeflag = tar.TypeReg
		return p.file(path, h)
	}
}

func (p *packer) children(path, name string, entries []fs.DirEntry) error {
	for _, e := range entries {
		child := filepath.Join(path, e.Name())
		st, err := e.Info()
		if err == nil {
			err = unfit(child, st)
		}
		if err != nil {
			err = fmt.Errorf("add %s: %w", child, cause(err))
		} else {
			err = p.add(child, name+"/"+e.Name(), st)
		}
		if err := p.leaveOut(child, err); err != nil {
			return err
		}
	}
	return nil
}

// leaveOut returns err unless it says that path can't be added, or is gone since its directory was read.
func (p *packer) leaveOut(path string, err error) error {
	switch {
	case err == nil || p.opts.Strict:
		return err
	case errors.Is(err, fs.ErrNotExist):
		p.opts.Skipped(path, errGone)
	case errors.Is(err, ErrStrict):
		p.opts.Skipped(path, errors.Unwrap(err)) // who is told knows the path
	default:
		return err
	}
	return nil
}

// file writes a regular file of the length it has when it is opened.
func (p *packer) file(path string, h *tar.Header) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe that took its place must not hold us up
	if err != nil {
		return fmt.Errorf("add %s: %w", path, cause(err))
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("it became another kind of file while it was read")
	}
	if err != nil {
		return fmt.Errorf("add %s: %w", path, cause(err))
	}
	h.Size = st.Size()
	if p.opts.Lane != nil && h.Size >= passFrom && passable(f) {
		return p.pass(path, h, f)
	}
	if err := p.header(path, h); err != nil {
		return err
	}
	in := io.LimitReader(f, h.Size)
	for left := h.Size; left > 0; {
		n, err := io.ReadFull(in, p.buf[:min(left, int64(len(p.buf)))])
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return errShorter(path)
			}
			return fmt.Errorf("add %s: %w", path, cause(err))
		}
		if _, err := p.tar.Write(p.buf[:n]); err != nil {
			return p.writeError(path, err)
		}
		if p.opts.Progress != nil {
			p.opts.Progress(n)
		}
		left -= int64(n)
	}
	return nil
}

// pass writes an entry without bytes, and hands the file to the node.
func (p *packer) pass(path string, h *tar.Header, f *os.File) error {
	h.PAXRecords = map[string]string{paxFile: path, paxBytes: strconv.FormatInt(h.Size, 10)}
	size := h.Size
	h.Size = 0
	if err := p.header(path, h); err != nil {
		return err
	}
	err := p.tar.Flush()
	if err == nil {
		err = p.out.Flush()
	}
	if err == nil {
		err = p.opts.Lane.pass(f, size, p.opts.Progress)
	}
	if err != nil {
		return p.writeError(path, err)
	}
	return nil
}

func (p *packer) header(path string, h *tar.Header) error {
	if err := p.tar.WriteHeader(h); err != nil {
		return p.writeError(path, err)
	}
	return nil
}

func (p *packer) writeError(path string, err error) error {
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	return fmt.Errorf("add %s: %w", path, err)
}

// unfit says why a file can't be added, or nil.
func unfit(path string, st fs.FileInfo) error {
	var why string
	switch name := filepath.Base(path); {
	case !utf8.ValidString(name):
		why = "its name is not UTF-8"
	case st.Mode()&fs.ModeNamedPipe != 0:
		why = "it is a pipe"
	case st.Mode()&fs.ModeSocket != 0:
		why = "it is a socket"
	case st.Mode()&fs.ModeDevice != 0:
		why = "it is a device"
	case st.Mode()&fs.ModeIrregular != 0:
		why = "it is no regular file"
	default:
		return nil
	}
	return fmt.Errorf("%w: %s", ErrStrict, why)
}

// unixMode is mode as tar and UnixFS have it: permissions, setuid, setgid, sticky.
func unixMode(mode fs.FileMode) uint32 {
	m := uint32(mode.Perm())
	for bit, flag := range modeBits {
		if mode&flag != 0 {
			m |= bit
		}
	}
	return m
}

var modeBits = map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky}

// cause is the reason in a PathError, whose path the caller names itself.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Measure adds up the bytes of regular files in trees, for a progress bar; what can't be read counts as nothing.
func Measure(ctx context.Context, paths []string) (bytes int64) {
	for _, path := range paths {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
			if err != nil || ctx.Err() != nil {
				return ctx.Err()
			}
			if st, err := e.Info(); err == nil && st.Mode().IsRegular() {
				bytes += st.Size()
			}
			return nil
		})
	}
	return bytes
}
