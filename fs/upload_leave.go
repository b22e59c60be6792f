package fs

import (
	"context"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// notice is what Uploads is being told about the bytes of a file. One a file is under way.
type notice struct {
	done chan struct{}
	err  error // once done is closed
}

// tellLocked has Uploads told something that may take it long, and waits for it as long as ctx lasts; it goes on after
// that, until the mount ends. n.mu is let go of meanwhile.
func (t *uploadTree) tellLocked(ctx context.Context, n *staged, tell func(context.Context) error) error {
	w := &notice{done: make(chan struct{})}
	n.notice = w
	serving := t.serving.Load().Context
	t.table.hold(n)
	t.work.Go(func() {
		defer t.table.release(n)
		w.err = tell(serving)
		n.mu.Lock()
		defer n.mu.Unlock()
		n.notice = nil
		close(w.done)
	})
	if err := t.awaitLocked(ctx, n, w); err != nil {
		return err
	}
	return w.err
}

// hearLocked waits until nothing is being told. What comes of it is for others.
func (t *uploadTree) hearLocked(ctx context.Context, n *staged) error {
	for n.notice != nil {
		if err := t.awaitLocked(ctx, n, n.notice); err != nil {
			return err
		}
	}
	return nil
}

func (t *uploadTree) awaitLocked(ctx context.Context, n *staged, w *notice) error {
	n.mu.Unlock()
	defer n.mu.Lock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: what others need of the file is still being copied: %w", ErrUnavailable, ctx.Err())
	}
}

// leave tells that a name is about to go, if it is the last of a file.
func (t *uploadTree) leave(ctx context.Context, d *doomed) error {
	if !d.last || d.n.kind != syscall.S_IFREG || d.id == (FileID{}) {
		return nil
	}
	err := t.tellLeaving(ctx, d.n, true)
	d.leaving = err == nil
	if err != nil {
		return err
	}
	d.n.mu.Lock()
	defer d.n.mu.Unlock()
	d.last, err = t.lastLocked(d.n) // somebody may have linked it in between
	return err
}

// lastLocked tells whether a file has no name in the tree but one. While what was kept is being given back it may also say
// so of one that has two.
func (t *uploadTree) lastLocked(n *staged) (bool, error) {
	var st unix.Statx_t
	if err := t.table.stat(n, &st); err != nil {
		return false, err
	}
	return st.Nlink == 1 || n.kept && st.Nlink == 2, nil
}

// tellLeaving tells that the last name or the bytes of a file are about to go. Without an error left follows.
func (t *uploadTree) tellLeaving(ctx context.Context, n *staged, unlink bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leaving++ // no lease from now on
	if unlink {
		t.leases.breakAllOf(n)
	}
	err := t.hearLocked(ctx, n)
	if err == nil {
		err = t.leavingLocked(ctx, n, unlink)
	}
	if err != nil {
		t.leftLocked(n)
	}
	return err
}

func (t *uploadTree) leavingLocked(ctx context.Context, n *staged, unlink bool) error {
	f, err := t.fileLocked(n)
	if err != nil {
		return err
	}
	var keep func(string) error
	if unlink && t.keepableLocked(n) {
		keep = func(path string) error { return t.keep(n, path) }
	}
	return t.tellLocked(ctx, n, func(ctx context.Context) error {
		if err := t.cfg.Uploads.Leaving(ctx, f, keep); err != nil {
			return fmt.Errorf("%w: tell that %s goes: %w", ErrUnavailable, f.Path, err)
		}
		if keep == nil {
			t.givenBack(n)
		}
		return nil
	})
}

// keepableLocked tells whether nobody has the file open, here or, for writing, in staging.
func (t *uploadTree) keepableLocked(n *staged) bool {
	if n.opens > 0 || n.writers > 0 || n.gone || t.stubLocked(n) != nil {
		return false
	}
	fd, err := t.table.reopen(n, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	_, err = takeLease(fd, unix.F_RDLCK)
	return err == nil
}

// keep gives a file one more name, outside the tree, while its last name is about to go.
func (t *uploadTree) keep(n *staged, path string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.leaving == 0 || !t.keepableLocked(n) {
		return ErrBusy
	}
	err := t.withFd(n, func(fd int) error {
		return unix.Linkat(unix.AT_FDCWD, procPath(fd), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	})
	n.kept = n.kept || err == nil
	return err
}

// left says that what Uploads was told of has happened, or has not.
func (t *uploadTree) left(n *staged) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t.leftLocked(n)
}

func (t *uploadTree) leftLocked(n *staged) {
	n.leaving--
	if n.leaving > 0 || n.gone || !n.kept {
		return
	}
	t.table.hold(n)
	t.work.Go(func() {
		defer t.table.release(n)
		if err := t.giveBack(t.serving.Load().Context, n); err != nil {
			t.report("give back", n, err)
		}
	})
}

// giveBack has the name outside the tree taken away from a file that has not gone after all.
func (t *uploadTree) giveBack(ctx context.Context, n *staged) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := t.hearLocked(ctx, n); err != nil {
		return err
	}
	if !n.kept || n.gone || n.leaving > 0 { // another may have begun to take it away
		return nil
	}
	f, err := t.fileLocked(n)
	if err != nil {
		return err
	}
	return t.tellLocked(ctx, n, func(ctx context.Context) error {
		err := t.cfg.Uploads.Opened(ctx, f)
		if err == nil {
			t.givenBack(n)
		}
		return err
	})
}

// givenBack notes that Uploads has taken away the name that it gave a file.
func (t *uploadTree) givenBack(n *staged) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.gone {
		n.kept = false
	}
}
