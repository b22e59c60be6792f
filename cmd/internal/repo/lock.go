package repo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/holdfastfs/holdfast/cmd/internal/hint"
)

// ErrInUse says that another process owns the repo.
var ErrInUse = errors.New("repo in use")

// InUseError is [ErrInUse] with the owner.
type InUseError struct {
	Dir string
	Pid int // 0: not known yet
}

func (e *InUseError) Error() string {
	if e.Pid == 0 {
		return fmt.Sprintf("open repo %s: in use by another process", e.Dir)
	}
	return fmt.Sprintf("open repo %s: in use by pid %d", e.Dir, e.Pid)
}

// Is makes errors.Is(err, ErrInUse) hold.
func (e *InUseError) Is(target error) bool { return target == ErrInUse }

// Hint says what to try.
func (e *InUseError) Hint() string {
	return "wait until it has ended, or give this command another repo with --repo"
}

// lock is the ownership of a repo: an flock that ends with the process at the latest.
type lock struct{ f *os.File }

// takeLock owns dir or returns an InUseError.
func takeLock(dir string) (*lock, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, explain(dir, fmt.Errorf("open repo: %w", err))
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		pid := readPid(f)
		f.Close()
		return nil, &InUseError{Dir: dir, Pid: pid}
	}
	if err != nil {
		f.Close()
		return nil, hint.Add(fmt.Errorf("lock repo %s: %w", dir, err), "a repo needs a file system with flock")
	}
	if err := writePid(f); err != nil {
		f.Close()
		return nil, explain(dir, fmt.Errorf("lock repo %s: %w", dir, err))
	}
	return &lock{f: f}, nil
}

// release ends the ownership. The file stays: removing it would let two processes lock two files.
func (l *lock) release() error {
	return errors.Join(l.f.Truncate(0), l.f.Close())
}

func readPid(f *os.File) int {
	buf := make([]byte, 32)
	n, _ := f.ReadAt(buf, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		return 0
	}
	return pid
}

func writePid(f *os.File) error {
	pid := fmt.Sprintf("%d\n", os.Getpid())
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(pid), 0)
	return err
}
