package payment

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/holdfastfs/holdfast/exchange/payment/durable"
)

// bookView is what a file said. A file with the same inode, size, time and first bytes says the same,
// as every change replaces the file and counts the revision there. That is enough to read; what is
// changed is compared whole, in case somebody wrote into the file in place.
type bookView struct {
	inode uint64
	size  int64
	time  time.Time
	head  []byte
	sum   [sha256.Size]byte // of all of it
	book  *ledger
}

func (v *bookView) looksLike(o *bookView) bool {
	return v != nil && v.inode == o.inode && v.size == o.size && v.time.Equal(o.time) && bytes.Equal(v.head, o.head)
}

const headBytes = 256

// read returns the book as the file has it now. It needs no lock, as a change replaces the file. The
// result is shared and must not be changed. With whole, all of the file is looked at.
func (b *Book) read(whole bool) (*ledger, error) {
	f, err := os.OpenFile(b.path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return newLedger(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read book: %w", err)
	}
	defer f.Close()
	view, err := lookAt(f)
	if err != nil {
		return nil, fmt.Errorf("read book %s: %w", b.path, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !whole && b.last.looksLike(&view) {
		return b.last.book, nil
	}
	data, err := io.ReadAll(io.NewSectionReader(f, 0, maxBookBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read book %s: %w", b.path, err)
	}
	if view.sum = sha256.Sum256(data); b.last != nil && b.last.sum == view.sum {
		view.book = b.last.book
	} else if view.book, err = parseBook(data); err != nil {
		return nil, fmt.Errorf("read book %s: %w", b.path, err)
	}
	b.last = &view
	return view.book, nil
}

func lookAt(f *os.File) (bookView, error) {
	info, err := f.Stat()
	if err != nil {
		return bookView{}, err
	}
	if !info.Mode().IsRegular() {
		return bookView{}, fmt.Errorf("%w: not a regular file", ErrBook)
	}
	if info.Size() > maxBookBytes {
		return bookView{}, fmt.Errorf("%w: %d bytes", ErrBook, info.Size())
	}
	v := bookView{size: info.Size(), time: info.ModTime(), head: make([]byte, headBytes)}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		v.inode = s.Ino
	}
	n, err := f.ReadAt(v.head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return bookView{}, err
	}
	v.head = v.head[:n]
	return v, nil
}

// write replaces the file: after a crash it is there as it was or as it is now. The lock is held.
func (b *Book) write(l *ledger) error {
	data, err := encodeBook(l)
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o600)
	if info, err := os.Stat(b.path); err == nil {
		mode = info.Mode().Perm()
	}
	tmp := b.path + ".tmp" // one name: what a killed process left is replaced
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write book: %w", err)
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_CLOEXEC, mode)
	if err != nil {
		return fmt.Errorf("write book: %w", err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, b.path)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("write book: %w", err)
	}
	if err := durable.SyncPath(filepath.Dir(b.path)); err != nil {
		return fmt.Errorf("write book: %w", err)
	}
	b.mu.Lock()
	b.last = &bookView{sum: sha256.Sum256(data), book: l} // so that it need not be parsed
	b.mu.Unlock()
	return nil
}

// Pauses between tries for the lock of another process.
const (
	lockPauseMin = time.Millisecond
	lockPauseMax = 25 * time.Millisecond
)

// lock waits for its turn among the goroutines of this process and then among processes.
func (b *Book) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("lock book: %w", context.Cause(ctx))
	}
	f, err := lockFile(ctx, b.path+".lock")
	if err != nil {
		<-b.turn
		return nil, fmt.Errorf("lock book: %w", err)
	}
	return func() {
		f.Close() // ends the lock
		<-b.turn
	}, nil
}

func lockFile(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for pause := lockPauseMin; ; pause = min(2*pause, lockPauseMax) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			f.Close()
			return nil, err
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			f.Close()
			return nil, context.Cause(ctx)
		}
	}
}
