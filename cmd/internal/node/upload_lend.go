package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/holdfastfs/holdfast/blockcache"
	"github.com/holdfastfs/holdfast/fs"
	"github.com/holdfastfs/holdfast/uploader/dag"
	"github.com/holdfastfs/holdfast/uploader/dataset"
)

const (
	// lentTries is how often a staged file is looked for that is renamed just now, and lentRetry the time between.
	lentTries = 3
	lentRetry = 2 * time.Millisecond
)

// lender lends staged files to the store: their blocks are read where they lie. A file is lent when its import is done,
// in the version that was imported, and given back before its bytes change or go.
type lender struct {
	n *Node

	mu    sync.Mutex // guards what follows
	open  map[importKey]*importFile
	turns map[importKey]*lendTurn
}

// lendTurn is held while a loan of a file is made or ended, so that none is made of what was just given back.
type lendTurn struct {
	sync.Mutex
	users int    // guarded by lender.mu
	path  string // guarded by lender.mu: where the file lies, as whoever has the turn was told; may be empty
}

var _ blockcache.Lender = (*lender)(nil)

// importKey names a file of a directory.
type importKey struct {
	u  *uploadDir
	id fs.FileID
}

func newLender(n *Node) *lender {
	return &lender{n: n, open: make(map[importKey]*importFile), turns: make(map[importKey]*lendTurn)}
}

// lock excludes other changes of a file's loans. The file lies at p, if that is not empty.
func (l *lender) lock(k importKey, p string) (unlock func()) {
	l.mu.Lock()
	t := l.turns[k]
	if t == nil {
		t = &lendTurn{}
		l.turns[k] = t
	}
	t.users++
	l.mu.Unlock()
	t.Lock()
	l.mu.Lock()
	defer l.mu.Unlock()
	t.path = p
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		t.path = ""
		t.Unlock()
		if t.users--; t.users == 0 {
			delete(l.turns, k)
		}
	}
}

// loanName is the name by which a directory's file is lent.
func (u *uploadDir) loanName(id fs.FileID) string { return u.req.Name + "/" + id.String() }

func stampOf(v dataset.Version) blockcache.Stamp {
	return blockcache.Stamp{Bytes: v.Bytes, ModTime: v.ModTime, ChangeTime: v.ChangeTime}
}

// OpenLent implements blockcache.Lender. Directories need not be mounted, nor opened: where nobody knows better the file
// is looked for where it was.
func (l *lender) OpenLent(name, hint string) (*os.File, error) {
	dir, hex, _ := strings.Cut(name, "/")
	id, err := fs.ParseFileID(hex)
	if err != nil {
		return nil, err
	}
	u := l.n.uploadDirs.opened(dir)
	for try := 1; ; try++ {
		f, err := l.openAny(u, dir, id, hint)
		if err == nil || u == nil || try == lentTries {
			return f, err
		}
		time.Sleep(lentRetry) // between a rename and the word of it
	}
}

// openAny opens a staged file by any name that it may have; u is nil where its directory is not open.
func (l *lender) openAny(u *uploadDir, dir string, id fs.FileID, hint string) (*os.File, error) {
	tried, errs := []string{""}, []error(nil)
	try := func(paths ...string) *os.File {
		for _, p := range paths {
			if slices.Contains(tried, p) {
				continue
			}
			tried = append(tried, p)
			f, err := openStaged(l.n.stagingDir(dir), p, id)
			if err == nil {
				return f
			}
			errs = append(errs, err)
		}
		return nil
	}
	if u != nil {
		u.mu.Lock()
		known, _ := u.paths.path(id)
		set := u.set
		u.mu.Unlock()
		if f := try(known, l.told(importKey{u, id})); f != nil {
			return f, nil
		}
		if set != nil { // hard links: one name is known, and may have gone
			paths, err := set.Paths(u.ctx, dataset.FileID(id))
			errs = append(errs, err)
			if f := try(paths...); f != nil {
				return f, nil
			}
		}
	}
	if f := try(hint); f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("find a lent file: %w", errors.Join(errs...))
}

// told is where a file lies whose turn it is.
func (l *lender) told(k importKey) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.turns[k]; t != nil {
		return t.path
	}
	return ""
}

// opened is the upload directory that is open by a name, or is being opened; nil if none is.
func (us *uploads) opened(name string) *uploadDir {
	us.mu.Lock()
	defer us.mu.Unlock()
	return us.byName[name]
}

// openStaged opens a file of a staging directory that has an ID, and bytes.
func openStaged(dir, p string, id fs.FileID) (_ *os.File, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(p, restingFlags, 0)
	if err != nil {
		return nil, err
	}
	var is fs.FileID
	if n, xerr := unix.Fgetxattr(int(f.Fd()), xattrFileID, is[:]); xerr != nil || n != len(is) || is != id {
		return nil, errors.Join(fmt.Errorf("%s is another file", p), f.Close())
	}
	if _, evicted, eerr := fs.Evicted(f); eerr != nil || evicted {
		return nil, errors.Join(fmt.Errorf("%s is evicted", p), eerr, f.Close())
	}
	return f, nil
}

// importFile is a staged file that is open to be imported.
type importFile struct {
	dataset.StagedFile
	l       *lender
	key     importKey
	path    string
	staged  bool        // its bytes are read from staging
	changed atomic.Bool // it could not be lent any more as it was
}

// importing notes that a file is open.
func (l *lender) importing(u *uploadDir, id fs.FileID, p string, f dataset.StagedFile) *importFile {
	r, rests := f.(*resting)
	i := &importFile{StagedFile: f, l: l, key: importKey{u, id}, path: p, staged: !rests || r.in == r.File}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[i.key] = i
	return i
}

// Stat implements dataset.StagedFile.
func (i *importFile) Stat() (dataset.FileStat, error) {
	st, err := i.StagedFile.Stat()
	if i.changed.Load() {
		st.ChangeTime++
	}
	return st, err
}

// Close implements dataset.StagedFile.
func (i *importFile) Close() error {
	i.l.mu.Lock()
	if i.l.open[i.key] == i {
		delete(i.l.open, i.key)
	}
	i.l.mu.Unlock()
	return i.StagedFile.Close()
}

// body begins the body of a file that is being imported; nil if it cannot be lent.
func (l *lender) body(ctx context.Context, u *uploadDir, id fs.FileID, fileBytes uint64) (dag.Body, error) {
	l.mu.Lock()
	f := l.open[importKey{u, id}]
	l.mu.Unlock()
	if f == nil || !f.staged {
		return nil, nil
	}
	st, err := f.Stat()
	if err != nil || uint64(st.Bytes) != fileBytes {
		return nil, nil // the import finds out
	}
	w, err := l.n.store.LendBody(ctx, blockcache.Loan{Name: u.loanName(id), Hint: f.path, Stamp: stampOf(st.Version)})
	if err != nil {
		return nil, err
	}
	return &lentBody{BodyWriter: w, f: f, st: st}, nil
}

// lentBody is the body of a file that stays where it is.
type lentBody struct {
	*blockcache.BodyWriter
	f  *importFile
	st dataset.FileStat
}

// Commit implements dag.Body. Of a file that somebody writes, or removes, nothing is committed, and its import is told
// that it has changed.
func (b *lentBody) Commit(ctx context.Context, file cid.Cid) error {
	defer b.f.l.lock(b.f.key, b.f.path)()
	st, err := b.f.Stat()
	if err != nil || st != b.st {
		b.f.changed.Store(true)
		b.Abort()
		return err
	}
	err = b.BodyWriter.Commit(ctx, file)
	if errors.Is(err, blockcache.ErrRecalled) {
		b.f.changed.Store(true)
		return nil
	}
	return err
}

// reclaim ends the loan of a file whose bytes are about to change, or to go.
func (l *lender) reclaim(ctx context.Context, u *uploadDir, f fs.File) error {
	defer l.lock(importKey{u, f.ID}, f.Path)()
	return l.n.store.Reclaim(ctx, u.loanName(f.ID))
}

// takeOver ends the loan of a file whose last name is about to go, by giving it another.
func (l *lender) takeOver(ctx context.Context, u *uploadDir, f fs.File, keep func(path string) error) error {
	defer l.lock(importKey{u, f.ID}, f.Path)()
	return l.n.store.TakeOver(ctx, u.loanName(f.ID), keep)
}

// restamp notes that a file has the bytes that it had, and another stamp or path.
func (l *lender) restamp(ctx context.Context, u *uploadDir, f fs.File) {
	loan := blockcache.Loan{Name: u.loanName(f.ID), Hint: f.Path, Stamp: stampOf(setVersion(f.Version))}
	if err := l.n.store.Restamp(ctx, loan); err != nil {
		l.n.log.Warn("a staged file's blocks may have to be read anew", "path", f.Path, "error", err)
	}
}

// gone ends the loan of a file that is no more.
func (l *lender) gone(ctx context.Context, u *uploadDir, id fs.FileID) {
	if err := l.n.store.Gone(ctx, u.loanName(id)); err != nil {
		l.n.log.Warn("blocks of a removed file stay for now", "path", u.dir, "error", err)
	}
}

// scanned ends the loans of files that a scan did not find.
func (l *lender) scanned(ctx context.Context, u *uploadDir) {
	for _, name := range l.n.store.Loans(u.req.Name + "/") {
		id, err := fs.ParseFileID(strings.TrimPrefix(name, u.req.Name+"/"))
		u.mu.Lock()
		_, known := u.paths.path(id)
		u.mu.Unlock()
		if err == nil && !known {
			l.gone(ctx, u, id)
		}
	}
}
