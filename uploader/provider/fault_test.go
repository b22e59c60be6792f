package provider

import (
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

const sector = 512

// faultFolder is a folder that remembers what was not synced, so that a power cut can lose it: any
// sector of any write, growth of files, creations and removals, each on its own.
type faultFolder struct {
	osFolder
	morgue string

	mu     sync.Mutex
	files  map[string]*faultState
	buried map[string]*faultState // removed, and the removal not durable; contents in morgue
	room   int64                  // bytes that may still be written; below zero: no bound
	sick   error                  // what Sync of files answers
}

// faultState is what the disk surely has of a file, as far as it differs from what was written.
type faultState struct {
	named bool
	size  int64
	old   map[int64][]byte // sector → its durable bytes
}

func newFaultFolder(dir string) (*faultFolder, error) {
	o, err := newOSFolder(dir)
	if err != nil {
		return nil, err
	}
	f := &faultFolder{osFolder: o, morgue: dir + ".morgue", files: map[string]*faultState{}, buried: map[string]*faultState{}, room: -1}
	if err := os.MkdirAll(f.morgue, 0o700); err != nil {
		return nil, err
	}
	return f, o.Each(func(name string) error {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		f.files[name] = &faultState{named: true, size: st.Size(), old: map[int64][]byte{}}
		return nil
	})
}

func (f *faultFolder) Create(name string) (file, error) {
	g, err := f.osFolder.Create(name)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	st := &faultState{old: map[int64][]byte{}}
	f.files[name] = st
	return &faultFile{g.(*osFile), f, st}, nil
}

func (f *faultFolder) Open(name string) (file, error) {
	g, err := f.osFolder.Open(name)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return &faultFile{g.(*osFile), f, f.files[name]}, nil
}

func (f *faultFolder) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.files[name]
	if st == nil {
		return os.ErrNotExist
	}
	delete(f.files, name)
	f.buried[name] = st
	return os.Rename(filepath.Join(f.dir, name), filepath.Join(f.morgue, name))
}

func (f *faultFolder) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, st := range f.files {
		st.named = true
	}
	for name := range f.buried {
		if err := os.Remove(filepath.Join(f.morgue, name)); err != nil {
			return err
		}
	}
	clear(f.buried)
	return nil
}

// faultFile is an open file of a faultFolder.
type faultFile struct {
	*osFile
	fs *faultFolder
	st *faultState
}

// keepLocked remembers the durable bytes of [lo, hi) before they change.
func (g *faultFile) keepLocked(lo, hi int64) error {
	for i := lo / sector; i*sector < hi; i++ {
		if _, ok := g.st.old[i]; ok {
			continue
		}
		p := make([]byte, sector)
		if _, err := g.osFile.ReadAt(p, i*sector); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		g.st.old[i] = p
	}
	return nil
}

func (g *faultFile) WriteAt(p []byte, off int64) (int, error) {
	g.fs.mu.Lock()
	defer g.fs.mu.Unlock()
	if err := g.keepLocked(off, off+int64(len(p))); err != nil {
		return 0, err
	}
	if g.fs.room >= 0 {
		if int64(len(p)) > g.fs.room {
			n, err := g.osFile.WriteAt(p[:g.fs.room], off) // some of it, as a full disk does
			g.fs.room = 0
			return n, errors.Join(err, &os.PathError{Op: "write", Err: syscall.ENOSPC})
		}
		g.fs.room -= int64(len(p))
	}
	return g.osFile.WriteAt(p, off)
}

func (g *faultFile) Sync() error {
	g.fs.mu.Lock()
	defer g.fs.mu.Unlock()
	if g.fs.sick != nil {
		return g.fs.sick
	}
	clear(g.st.old)
	st, err := g.Stat()
	if err == nil {
		g.st.size = st.Size()
	}
	return err
}

// cut copies to another folder what a power cut might leave.
func (f *faultFolder) cut(r *rand.Rand, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := os.MkdirAll(to, 0o700); err != nil {
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
			from[name] = filepath.Join(f.morgue, name)
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
		if err := os.WriteFile(filepath.Join(to, name), st.torn(r, p), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// torn returns a content that the disk may have, of a file whose content is p.
func (st *faultState) torn(r *rand.Rand, p []byte) []byte {
	lose := []float64{0, 0.1, 0.5, 1}[r.IntN(4)]
	size := int64(len(p))
	if st.size < size {
		switch r.IntN(3) {
		case 0:
			size = st.size
		case 1:
			size = st.size + r.Int64N(size-st.size+1)
		}
	}
	out := make([]byte, size)
	copy(out, p)
	for i, old := range st.old {
		if r.Float64() < lose && i*sector < size {
			copy(out[i*sector:], old)
		}
	}
	return out
}

// mixLog returns a log some of whose sectors never reached the disk after its last sync.
func mixLog(r *rand.Rand, synced, now []byte) []byte {
	lose := []float64{0, 0.2, 0.5, 1}[r.IntN(4)]
	out := append([]byte{}, now...)
	if len(synced) < len(out) {
		synced = append(synced, make([]byte, len(out)-len(synced))...)
	}
	for at := 0; at < len(out); at += sector {
		end := min(at+sector, len(out))
		if r.Float64() < lose {
			copy(out[at:end], synced[at:end])
		}
	}
	return out
}
