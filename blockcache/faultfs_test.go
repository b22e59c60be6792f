package blockcache

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

const sector = 512

// faultFiles is a folder that remembers what was not synced, so that a power cut can lose it: any
// sector of any write, growth of files, creations and removals, each on its own.
type faultFiles struct {
	osFiles

	mu     sync.Mutex
	files  map[string]*faultState
	buried map[string]*faultState // removed, and the removal not durable; contents in morgue
	room   int64                  // bytes that may still be written; below zero: no bound
	sick   error                  // what Sync of files answers
	bad    map[string]span        // per file, what cannot be read
}

// faultState is what the disk surely has of a file, as far as it differs from what was written.
type faultState struct {
	named bool // its name is durable
	size  int64
	old   map[int64][]byte // sector → its durable bytes
}

func newFaultFiles(dir string) (*faultFiles, error) {
	o, err := newOSFiles(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "morgue"), 0o700); err != nil {
		return nil, err
	}
	f := &faultFiles{osFiles: o, files: map[string]*faultState{}, buried: map[string]*faultState{}, room: -1}
	for _, d := range []string{packDir, bodyDir} {
		names, err := o.List(d)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			st, err := os.Stat(filepath.Join(dir, d, n))
			if err != nil {
				return nil, err
			}
			f.files[d+"/"+n] = &faultState{named: true, size: st.Size(), old: map[int64][]byte{}}
		}
	}
	return f, nil
}

func (f *faultFiles) Create(name string) (file, error) {
	g, err := f.osFiles.Create(name)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	st := &faultState{old: map[int64][]byte{}}
	f.files[name] = st
	return &faultFile{g, f, st, name}, nil
}

func (f *faultFiles) Open(name string) (file, error) {
	g, err := f.osFiles.Open(name)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return &faultFile{g, f, f.files[name], name}, nil
}

func (f *faultFiles) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.files[name]
	if st == nil {
		return os.ErrNotExist
	}
	delete(f.files, name)
	f.buried[name] = st
	return os.Rename(filepath.Join(f.dir, name), filepath.Join(f.dir, "morgue", filepath.Base(name)))
}

// Adopt takes a file of others in. It is durable, and its name is not yet.
func (f *faultFiles) Adopt(name string, link func(path string) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.osFiles.Adopt(name, link); err != nil {
		return err
	}
	st, err := os.Stat(filepath.Join(f.dir, name))
	if err != nil {
		return err
	}
	f.files[name] = &faultState{size: st.Size(), old: map[int64][]byte{}}
	return nil
}

func (f *faultFiles) SyncDirs() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, st := range f.files {
		st.named = true
	}
	for name := range f.buried {
		if err := os.Remove(filepath.Join(f.dir, "morgue", filepath.Base(name))); err != nil {
			return err
		}
	}
	clear(f.buried)
	return nil
}

// faultFile is an open file of a faultFiles.
type faultFile struct {
	file
	fs   *faultFiles
	st   *faultState
	name string
}

func (g *faultFile) ReadAt(p []byte, off int64) (int, error) {
	g.fs.mu.Lock()
	x, ok := g.fs.bad[g.name]
	g.fs.mu.Unlock()
	if ok && uint64(off) < x.hi && x.lo < uint64(off)+uint64(len(p)) {
		return 0, &os.PathError{Op: "read", Err: syscall.EIO}
	}
	return g.file.ReadAt(p, off)
}

// keep remembers the durable bytes of [lo, hi) before they change. The file's lock is held.
func (g *faultFile) keepLocked(lo, hi int64) error {
	for i := lo / sector; i*sector < hi; i++ {
		if _, ok := g.st.old[i]; ok {
			continue
		}
		p := make([]byte, sector)
		if _, err := readFull(g.file, p, i*sector); err != nil {
			return err
		}
		g.st.old[i] = p
	}
	return nil
}

func (g *faultFile) WriteAt(p []byte, off int64) (int, error) {
	g.fs.mu.Lock()
	defer g.fs.mu.Unlock()
	if g.fs.room >= 0 {
		if int64(len(p)) > g.fs.room {
			n, err := g.file.WriteAt(p[:g.fs.room], off) // half of it, as a full disk does
			g.fs.room = 0
			return n, errors.Join(err, &os.PathError{Op: "write", Err: syscall.ENOSPC})
		}
		g.fs.room -= int64(len(p))
	}
	if err := g.keepLocked(off, off+int64(len(p))); err != nil {
		return 0, err
	}
	return g.file.WriteAt(p, off)
}

func (g *faultFile) Truncate(n int64) error {
	g.fs.mu.Lock()
	defer g.fs.mu.Unlock()
	size, err := g.Size()
	if err != nil {
		return err
	}
	if err := g.keepLocked(n, size); err != nil {
		return err
	}
	return g.file.Truncate(n)
}

func (g *faultFile) Sync() error {
	g.fs.mu.Lock()
	defer g.fs.mu.Unlock()
	if g.fs.sick != nil {
		return g.fs.sick
	}
	clear(g.st.old)
	var err error
	g.st.size, err = g.Size()
	return err
}

// cut copies to another folder what a power cut might leave.
func (f *faultFiles) cut(r *rand.Rand, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	o, err := newOSFiles(to)
	if err != nil {
		return err
	}
	all := maps.Clone(f.files)
	from := map[string]string{}
	for name := range all {
		from[name] = filepath.Join(f.dir, name)
	}
	for name, st := range f.buried {
		if r.IntN(2) == 0 {
			all[name] = st
			from[name] = filepath.Join(f.dir, "morgue", filepath.Base(name))
		}
	}
	for name, st := range all {
		if !st.named && r.IntN(2) == 0 {
			continue
		}
		p, err := os.ReadFile(from[name])
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(o.dir, name), st.torn(r, p), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// torn returns a content that the disk may have, of a file whose content is p.
func (st *faultState) torn(r *rand.Rand, p []byte) []byte {
	lose := []float64{0, 0.1, 0.5, 1}[r.IntN(4)]
	size := int64(len(p))
	if st.size != size {
		switch lo, hi := min(st.size, size), max(st.size, size); r.IntN(3) {
		case 0:
			size = st.size
		case 1:
			size = lo + r.Int64N(hi-lo+1)
		}
	}
	out := make([]byte, size)
	copy(out, p)
	for i, old := range st.old {
		if r.Float64() < lose && i*sector < size {
			copy(out[i*sector:], old)
		}
	}
	if size > int64(len(p)) { // a truncation that was lost
		for i, old := range st.old {
			if (i+1)*sector > int64(len(p)) && i*sector < size {
				copy(out[i*sector:], old)
			}
		}
	}
	return out
}
