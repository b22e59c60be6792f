package fs

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// openTries is how often an inode is looked for again when its name changes meanwhile.
const openTries = 8

// use gives the descriptor of n, which stays open until done. It has no rights; what needs them opens it again by
// reopen. The error is ESTALE when n is no longer where it was.
func (t *stagedTable) use(n *staged) (int, error) {
	for try := 0; ; try++ {
		t.mu.Lock()
		if n.fd >= 0 {
			n.pins++
			fd := n.fd
			t.mu.Unlock()
			return fd, nil
		}
		parent, name := n.parent, n.name
		if parent == nil {
			t.mu.Unlock()
			return -1, staging(syscall.ESTALE)
		}
		parent.holds++
		t.mu.Unlock()
		fd, err := t.open(parent, name, n.key)
		t.release(parent)
		if err == nil {
			return t.keep(n, fd), nil
		}
		if try == openTries || !t.elsewhere(n, parent, name) {
			return -1, staging(syscall.ESTALE) // somebody changed staging; a lookup of the new name tells it
		}
	}
}

// open opens a name if it still is the inode it was.
func (t *stagedTable) open(parent *staged, name string, key inodeKey) (int, error) {
	dir, err := t.use(parent)
	if err != nil {
		return -1, err
	}
	defer t.done(parent)
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, staging(err)
	}
	var st unix.Statx_t
	if err = statFd(fd, &st); err == nil && keyOf(&st) != key {
		err = staging(syscall.ESTALE)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// keep makes fd the descriptor of n, unless it has one, and returns that, in use.
func (t *stagedTable) keep(n *staged, fd int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.pins++
	if n.fd >= 0 {
		unix.Close(fd)
		return n.fd
	}
	n.fd = fd
	t.fds[n] = struct{}{}
	for victim := range t.fds {
		if len(t.fds) <= t.maxFds {
			break
		}
		if victim.pins == 0 && victim.parent != nil {
			t.closeLocked(victim)
		}
	}
	return n.fd
}

// done ends a use.
func (t *stagedTable) done(n *staged) {
	t.mu.Lock()
	n.pins--
	dropped := t.sweepLocked(n, nil)
	t.mu.Unlock()
	t.dropped(dropped)
}

// stat is stat of n.
func (t *stagedTable) stat(n *staged, st *unix.Statx_t) error {
	fd, err := t.use(n)
	if err != nil {
		return err
	}
	defer t.done(n)
	return statFd(fd, st)
}

// reopen opens n with rights: the very inode, whatever its name is now.
func (t *stagedTable) reopen(n *staged, flags int) (int, error) {
	fd, err := t.use(n)
	if err != nil {
		return -1, err
	}
	defer t.done(n)
	switch n.kind {
	case syscall.S_IFDIR:
		fd, err = unix.Openat(fd, ".", flags|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	case syscall.S_IFREG:
		fd, err = ignoringEINTR(func() (int, error) {
			return unix.Openat(t.proc, strconv.Itoa(fd), flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		})
	default:
		err = syscall.EINVAL
	}
	if err != nil {
		return -1, staging(err)
	}
	return fd, nil
}

// procPath is a path of an open descriptor, for the system calls that have no other way to an inode.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// ignoringEINTR repeats a system call that a signal of the Go runtime has interrupted.
func ignoringEINTR(f func() (int, error)) (n int, err error) {
	for {
		if n, err = f(); err != syscall.EINTR {
			return n, err
		}
	}
}

// child finds a name in a directory and returns it, held.
func (t *stagedTable) child(parent *staged, name string, st *unix.Statx_t) (*staged, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	dir, err := t.use(parent)
	if err != nil {
		return nil, err
	}
	defer t.done(parent)
	t.names.RLock()
	defer t.names.RUnlock()
	if err := t.statAt(dir, name, st); err != nil {
		return nil, err
	}
	return t.intern(parent, name, st), nil
}

// checkName lets through what is one name.
func checkName(name string) error {
	if len(name) > longestName {
		return staging(syscall.ENAMETOOLONG)
	}
	if name == "" || name == "." || name == ".." {
		return staging(syscall.EINVAL)
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return staging(syscall.EINVAL)
		}
	}
	return nil
}
