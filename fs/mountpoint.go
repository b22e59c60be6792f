package fs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// subtype is what the mount table shows after "fuse.".
const subtype = "holdfast"

// mountEntry is a line of the mount table.
type mountEntry struct {
	device string // major:minor
	dir    string
	fsType string
	source string
}

func (m mountEntry) ours() bool { return m.fsType == "fuse."+subtype }

// mountTable reads the mounts of this process. It touches none of them.
func mountTable() ([]mountEntry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	defer f.Close()
	return parseMountTable(f)
}

// parseMountTable reads the format of proc_pid_mountinfo(5).
func parseMountTable(r io.Reader) ([]mountEntry, error) {
	var table []mountEntry
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		// Other blanks than this one may stand in names as they are.
		head, tail := strings.Split(before, " "), strings.Split(after, " ")
		if !ok || len(head) < 6 || len(tail) < 2 {
			continue
		}
		table = append(table, mountEntry{device: head[2], dir: unescape(head[4]), fsType: tail[0], source: unescape(tail[1])})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	return table, nil
}

// unescape undoes the octal escapes of the mount table.
func unescape(s string) string {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, `\`)
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		if n, err := strconv.ParseUint(after[:min(3, len(after))], 8, 8); err == nil && len(after) >= 3 {
			b.WriteByte(byte(n))
			s = after[3:]
		} else {
			b.WriteByte('\\')
			s = after
		}
	}
}

// topMount finds the mount that shows at dir: the last one made there.
func topMount(dir string) (mountEntry, bool, error) {
	table, err := mountTable()
	if err != nil {
		return mountEntry{}, false, err
	}
	for i := len(table) - 1; i >= 0; i-- {
		if table[i].dir == dir {
			return table[i], true, nil
		}
	}
	return mountEntry{}, false, nil
}

// mountedAs tells whether what shows at dir is the mount with a device number. It is an error when something else was
// mounted over it. Without a mount table, now or when the number was asked for, there is no knowing, and it is believed.
func mountedAs(dir, device string) (bool, error) {
	if device == "" {
		return true, nil
	}
	table, err := mountTable()
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	at := slices.DeleteFunc(table, func(m mountEntry) bool { return m.dir != dir })
	if !slices.ContainsFunc(at, func(m mountEntry) bool { return m.device == device }) {
		return false, nil
	}
	if top := at[len(at)-1]; top.device != device {
		return false, fmt.Errorf("%w: %s is mounted over it", ErrBusy, top.source)
	}
	return true, nil
}

// resolveDir gives the name by which the mount table knows dir. The last element is not touched, as it may be a dead
// mount.
func resolveDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", dir, err)
	}
	if _, ok, err := topMount(abs); err == nil && ok {
		return abs, nil
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", fmt.Errorf("mount point %s: %w", dir, plain(err))
	}
	name := filepath.Join(parent, filepath.Base(abs))
	if _, ok, err := topMount(name); err == nil && ok {
		return name, nil
	}
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return "", fmt.Errorf("mount point %s: %w", dir, plain(err))
	}
	return real, nil
}

// plain drops operation and path of an error about a file: the message names the mount point already.
func plain(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// prepareMountPoint makes sure that dir can be mounted on, and tells whether it is a regular file. A dead mount of
// ours is removed first, so that mounts never stack.
func prepareMountPoint(ctx context.Context, dir string) (name string, file bool, err error) {
	name, err = resolveDir(dir)
	if err != nil {
		return "", false, err
	}
	if err := clearStale(ctx, name); err != nil {
		return "", false, err
	}
	info, err := os.Lstat(name)
	if err != nil {
		return "", false, fmt.Errorf("mount point %s: %w", dir, plain(err))
	}
	switch {
	case info.Mode().IsRegular():
		return name, true, nil
	case !info.IsDir():
		return "", false, fmt.Errorf("mount point %s: neither a directory nor a regular file", dir)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", false, fmt.Errorf("mount point %s: %w", dir, plain(err))
	}
	defer f.Close()
	if names, err := f.Readdirnames(1); err == nil && len(names) > 0 {
		return "", false, fmt.Errorf("mount point %s: directory is not empty", dir)
	} else if err != nil && !errors.Is(err, io.EOF) {
		return "", false, fmt.Errorf("mount point %s: %w", dir, plain(err))
	}
	return name, false, nil
}

// staleLimit bounds how many dead mounts are peeled off one mount point.
const staleLimit = 64

// clearStale detaches dead mounts of ours from dir.
func clearStale(ctx context.Context, dir string) error {
	for range staleLimit {
		m, ok, err := topMount(dir)
		if errors.Is(err, os.ErrNotExist) {
			return nil // no /proc: whatever hides dir shows when it is looked at
		}
		if err != nil || !ok || !m.ours() {
			return err
		}
		if !dead(dir) {
			return fmt.Errorf("mount point %s: %w: %s is mounted there already", dir, ErrBusy, m.source)
		}
		if err := detach(ctx, dir, true); err != nil {
			return fmt.Errorf("remove the dead mount at %s: %w", dir, err)
		}
	}
	return fmt.Errorf("mount point %s: %w: more than %d dead mounts", dir, ErrBusy, staleLimit)
}

// deadPatience is how long a server may take to say that it is there.
const deadPatience = 5 * time.Second

// dead tells whether nobody serves the mount at dir any more. statfs goes to the server each time, and a server that is
// well answers it without the network. One that hangs is not dead; the goroutine that asked it stays with it.
func dead(dir string) bool {
	answer := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		answer <- unix.Statfs(dir, &st)
	}()
	patience := time.NewTimer(deadPatience)
	defer patience.Stop()
	select {
	case err := <-answer:
		return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED)
	case <-patience.C:
		return false
	}
}
