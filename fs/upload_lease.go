package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	firstLeaseRetry = 5 * time.Millisecond
	lastLeaseRetry  = time.Second
)

// takeLease asks the kernel for a lease on an open file. The error is ErrBusy while the file is open, or mapped, in a
// way that the lease excludes. On a file system without leases it is not held, and there is no error.
func takeLease(fd int, kind int) (held bool, err error) {
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, kind)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.EOPNOTSUPP):
		return false, nil
	case errors.Is(err, syscall.EAGAIN):
		return false, ErrBusy
	}
	return false, staging(err)
}

// Lease is a hold on one version of a staged file while somebody reads it: nobody was writing when it was taken, and
// who wants to write breaks it and goes ahead. Its methods may be called from any goroutine.
type Lease struct {
	// Staged is the open file, for reading. It is closed by Close.
	Staged *os.File

	// File is what is read, by the path that it had when the lease was taken.
	File File

	t      *uploadTree
	n      *staged
	held   bool // by the kernel too; some file systems have no leases
	broken chan struct{}
	once   sync.Once // breaks
	closed sync.Once
}

// Broken is closed when somebody is about to write through the mount. What was read before may be used if Check, called
// before, said so; reading on is pointless.
func (l *Lease) Broken() <-chan struct{} { return l.broken }

// Check tells whether all that was read so far is of the version in File: the lease holds, and size, modification and
// change time are as they were. Otherwise the error wraps ErrChanged.
func (l *Lease) Check() error {
	select {
	case <-l.broken:
		return fmt.Errorf("read %s: %w: somebody writes it", l.File.Path, ErrChanged)
	default:
	}
	fd := l.Staged.Fd()
	if held, err := unix.FcntlInt(fd, unix.F_GETLEASE, 0); l.held && (err != nil || held != unix.F_RDLCK) {
		return fmt.Errorf("read %s: %w: somebody writes it in staging", l.File.Path, ErrChanged)
	}
	var st unix.Statx_t
	if err := statFd(int(fd), &st); err != nil {
		return fmt.Errorf("read %s: %w", l.File.Path, err)
	}
	if v := versionOf(&st); v != l.File.Version {
		return fmt.Errorf("read %s: %w: %+v is %+v now", l.File.Path, ErrChanged, l.File.Version, v)
	}
	return nil
}

// Close gives the lease up.
func (l *Lease) Close() error {
	err := error(nil)
	l.closed.Do(func() {
		l.t.leases.remove(l)
		err = l.Staged.Close()
		l.t.table.release(l.n)
	})
	return err
}

// giveWay gives the kernel's lease up at once, so that nobody waits for the reader.
func (l *Lease) giveWay() {
	l.once.Do(func() {
		close(l.broken)
		if conn, err := l.Staged.SyscallConn(); err == nil {
			conn.Control(func(fd uintptr) { unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK) })
		}
	})
}

// leases are those held now.
type leases struct {
	// mu guards held.
	mu   sync.Mutex
	held map[*staged]map[*Lease]struct{}
}

func (s *leases) init() { s.held = make(map[*staged]map[*Lease]struct{}) }

func (s *leases) add(l *Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[l.n] == nil {
		s.held[l.n] = make(map[*Lease]struct{})
	}
	s.held[l.n][l] = struct{}{}
}

func (s *leases) remove(l *Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held[l.n], l)
	if len(s.held[l.n]) == 0 {
		delete(s.held, l.n)
	}
}

func (s *leases) any(n *staged) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held[n]) > 0
}

func (s *leases) breakAllOf(n *staged) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.held[n] {
		l.giveWay()
	}
}

func (s *leases) breakAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.held {
		for l := range s.held[n] {
			l.giveWay()
		}
	}
}

// find walks a path and returns what is there, held.
func (t *uploadTree) find(path string) (*staged, error) {
	n := t.table.root
	t.table.hold(n)
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		var st unix.Statx_t
		next, err := t.table.child(n, name, &st)
		t.table.release(n)
		if err != nil {
			return nil, err
		}
		n = next
	}
	return n, nil
}

// findFile finds a file by path, and makes sure that it is the one with the ID. It is held.
func (t *uploadTree) findFile(id FileID, path string) (*staged, error) {
	n, err := t.find(path)
	if err != nil {
		return nil, err
	}
	if n.kind == syscall.S_IFREG {
		n.mu.Lock()
		var have FileID
		have, err = t.idLocked(n, false)
		n.mu.Unlock()
		if err == nil && have == id {
			return n, nil
		}
	}
	t.table.release(n)
	return nil, errors.Join(fmt.Errorf("file %s is not at %s: %w", id, path, ErrNotFound), err)
}

// lease takes a lease as soon as nobody writes the file any more.
func (t *uploadTree) lease(ctx context.Context, id FileID, path string) (*Lease, error) {
	n, err := t.findFile(id, path)
	if err != nil {
		return nil, fmt.Errorf("lease %s: %w", path, err)
	}
	delay := firstLeaseRetry
	for {
		l, err := t.tryLease(n)
		if err == nil {
			l.File.Path = path
			return l, nil
		}
		if !errors.Is(err, ErrBusy) {
			t.table.release(n)
			return nil, fmt.Errorf("lease %s: %w", path, err)
		}
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			t.table.release(n)
			return nil, fmt.Errorf("lease %s: %w: %w", path, err, ctx.Err())
		case <-timer.C:
		}
		delay = min(2*delay, lastLeaseRetry)
	}
}

// tryLease takes a lease now; its hold on n is the caller's.
func (t *uploadTree) tryLease(n *staged) (*Lease, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.writers > 0 || n.leaving > 0 {
		return nil, ErrBusy
	}
	if t.stubLocked(n) != nil {
		return nil, ErrEvicted
	}
	fd, err := t.table.reopen(n, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	unix.SetNonblock(fd, false) // it was meant for the opening
	l := &Lease{t: t, n: n, broken: make(chan struct{}), Staged: os.NewFile(uintptr(fd), "staged file")}
	if l.held, err = takeLease(fd, unix.F_RDLCK); err == nil {
		l.File, err = t.fileLocked(n)
	}
	if err != nil {
		l.Staged.Close()
		return nil, err
	}
	t.leases.add(l)
	return l, nil
}
