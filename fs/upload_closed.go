package fs

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// firstRetry is when a refused lease is asked for again: the kernel may just not have dropped the last
	// descriptor yet. Then it is a mapping, which lives for long, or short.
	firstRetry = 2 * time.Millisecond
	lastRetry  = 500 * time.Millisecond

	// reportRetry is when a report that failed is made again.
	reportRetry = time.Second

	// racyWindow is more than a tick of the coarse clock that file systems take their times from.
	racyWindow = 20 * time.Millisecond
)

// verdict is what came of an attempt to report a file.
type verdict int

const (
	verdictDone   verdict = iota // reported, or nothing to report
	verdictMapped                // somebody may still write: ask again soon
	verdictFailed                // Uploads failed: report again later
	verdictTemp                  // the name waits for its rename
)

// settle reports a file if it is complete and has changed, or sees to it that this happens later.
func (t *uploadTree) settle(n *staged) {
	n.settling.Lock()
	defer n.settling.Unlock()
	v, err := t.tryReport(n)
	if err != nil {
		t.report("report", n, err)
	}
	switch v {
	case verdictDone:
		t.lookedAt(n)
	case verdictMapped:
		t.lookLater(n, firstRetry, lastRetry, false)
	case verdictFailed:
		t.lookLater(n, reportRetry, reportRetry, false)
	case verdictTemp:
		n.mu.Lock()
		wait := time.Until(n.tempUntil)
		n.mu.Unlock()
		t.lookLater(n, wait, wait, true)
	}
}

// tryReport reports a version if the file is complete.
func (t *uploadTree) tryReport(n *staged) (verdict, error) {
	if n.kind != syscall.S_IFREG {
		return verdictDone, nil
	}
	t.table.names.RLock()
	defer t.table.names.RUnlock()
	f, v, err := t.completed(n)
	if f == nil || err != nil {
		return v, err
	}
	ctx, cancel := t.telling()
	defer cancel()
	if err := t.cfg.Uploads.Closed(ctx, *f); err != nil {
		return verdictFailed, fmt.Errorf("tell that %s is complete: %w", f.Path, err)
	}
	n.mu.Lock()
	waited := n.temp != tempNone
	n.temp = tempNone
	n.mu.Unlock()
	if waited {
		t.tellNames(n, *f)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.writers == 0 { // who wrote and closed meanwhile waits for us, and finds another version
		n.before, n.unstated, n.pending, n.racy = f.Version, false, false, racy(f.Version)
	}
	return verdictDone, nil
}

// telling is the context in which Uploads is told something. It outlives an unmount, which is no reason to tell less.
func (t *uploadTree) telling() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), t.cfg.Timeout)
}

// racy tells whether a file may be written again without its version changing.
func racy(v Version) bool { return time.Since(time.Unix(0, max(v.ChangeTime, v.ModTime))) < racyWindow }

// completed gives the version to report, nil if there is none now.
func (t *uploadTree) completed(n *staged) (*File, verdict, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	path, named := t.table.path(n)
	if n.writers > 0 || n.gone || !named {
		return nil, verdictDone, nil // the last writer, or a new name, brings us back
	}
	if t.stubLocked(n) != nil {
		n.unstable.Store(false)
		t.recordLocked(n) // attributes of a stub may change; its bytes may not
		return nil, verdictDone, nil
	}
	if n.temp == tempWaits {
		if n.tempUntil.IsZero() {
			n.tempUntil = time.Now().Add(t.cfg.TempWait)
		}
		if time.Now().Before(n.tempUntil) {
			return nil, verdictTemp, nil
		}
	}
	f, err := t.restingLocked(n)
	switch {
	case errors.Is(err, ErrBusy):
		return nil, verdictMapped, nil
	case errors.Is(err, syscall.ESTALE), errors.Is(err, syscall.ENOENT):
		return nil, verdictDone, nil // gone from staging
	case err != nil:
		return nil, verdictFailed, err
	}
	n.unstable.Store(false)
	if !n.unstated && !n.racy && f.Version == n.before {
		n.pending = false
		return nil, verdictDone, nil
	}
	f.Path = path
	return &f, verdictDone, nil
}

// restingLocked gives the version of a file that nobody can be writing; otherwise the error is ErrBusy.
func (t *uploadTree) restingLocked(n *staged) (File, error) {
	if _, err := t.idLocked(n, true); err != nil {
		return File{}, err
	}
	fd, err := t.table.reopen(n, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return File{}, err
	}
	defer unix.Close(fd)
	if _, err := takeLease(fd, unix.F_RDLCK); err != nil {
		return File{}, err
	}
	if err := t.measureLocked(n); err != nil {
		return File{}, err
	}
	return t.fileLocked(n)
}

// fileLocked is the file as it is now.
func (t *uploadTree) fileLocked(n *staged) (File, error) {
	id, err := t.idLocked(n, true)
	if err != nil {
		return File{}, err
	}
	var st unix.Statx_t
	if err := t.table.stat(n, &st); err != nil {
		return File{}, err
	}
	path, _ := t.table.path(n)
	return File{ID: id, Path: path, Version: versionOf(&st)}, nil
}

// unchangedFile is the file for a Change that leaves its bytes alone; without a version while that is not sure.
func (t *uploadTree) unchangedFile(n *staged) File {
	if n.kind != syscall.S_IFREG {
		return File{}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return t.unchangedLocked(n)
}

func (t *uploadTree) unchangedLocked(n *staged) File {
	f, err := t.fileLocked(n)
	if err != nil {
		return File{ID: n.fileID}
	}
	if n.writers > 0 || (n.pending || n.unstated) && t.stubLocked(n) == nil {
		f.Version = Version{}
	} else {
		n.before = f.Version
	}
	return f
}

// recordLocked tells that the file has other times but the same bytes.
func (t *uploadTree) recordLocked(n *staged) {
	if n.kind != syscall.S_IFREG || n.gone {
		return
	}
	if f := t.unchangedLocked(n); f.Version != (Version{}) {
		t.changed(Change{Kind: Altered, Path: f.Path, File: f})
	}
}

// measureLocked counts what n takes on the disk now.
func (t *uploadTree) measureLocked(n *staged) error {
	var st unix.Statx_t
	if err := t.table.stat(n, &st); err != nil {
		return err
	}
	t.chargeLocked(n, &st)
	return nil
}

// chargeLocked counts blocks. What was there before the first look was counted at the start.
func (t *uploadTree) chargeLocked(n *staged, st *unix.Statx_t) {
	now := int64(st.Blocks) * 512
	if !n.counted {
		n.counted, n.charged = true, now
	}
	if now != n.charged {
		t.quota.settle(0, now-n.charged)
		n.charged = now
	}
}
