package dataset

import (
	"bytes"
	"errors"
	"math"
	"slices"
)

// What waits for something to be done has keys of its own, which are deleted when it was done. badger reads over every
// key that was deleted, so whoever looks for work would pay for all that was ever done. Therefore it is remembered where
// the first key of a kind can be, and which files there are keys of.

// start is where the keys of a kind begin that are named by a number first.
type start struct {
	low  uint64 // no key has a lower number; math.MaxUint64: there is no key
	sets uint64 // keys that were written: low is raised only if none was since it was looked
}

// numbered are the kinds of keys whose start is remembered.
var numbered = [256]bool{
	keyJournal: true, keyQueue: true, keyMark: true, keyOwner: true, keyDoomed: true, keyRelist: true, keyGive: true,
	keyEmpty: true, keyUnplaced: true, keyLost: true,
	keyRestage: true,
}

// fileSet are the files that have a key of a kind.
type fileSet struct {
	ids   map[FileID]struct{}
	whole bool // ids are all of them; otherwise they are to be looked for in the database
}

// named are the kinds of keys whose files are remembered.
var named = [256]bool{keyClosed: true, keyNameless: true, keyRelink: true}

const mostRemembered = 1 << 16 // files of a kind, if nothing else is said

// todo remembers where work is. Its fields change with each commit.
type todo struct {
	starts [256]start
	files  [256]fileSet
	most   int // files of a kind
}

// touched is a key of a kind that is remembered, which a transaction has written or deleted.
type touched struct {
	kind byte
	rest []byte
	gone bool
}

// remember notes a key that a transaction writes or deletes.
func (x *tx) remember(key []byte, gone bool) {
	n := len(x.d.cfg.Prefix)
	if kind := key[n]; named[kind] || numbered[kind] && !gone {
		x.touched = append(x.touched, touched{kind, key[n+1:], gone})
	}
}

// take notes what a transaction has done that was committed.
func (t *todo) take(list []touched) {
	for _, c := range list {
		if numbered[c.kind] {
			s := &t.starts[c.kind]
			s.low = min(s.low, number(c.rest, 0))
			s.sets++
			continue
		}
		t.files[c.kind].take(FileID(c.rest), c.gone, t.most)
	}
}

func (f *fileSet) take(id FileID, gone bool, most int) {
	switch {
	case !f.whole:
	case gone:
		delete(f.ids, id)
	case len(f.ids) >= most:
		f.ids, f.whole = nil, false
	default:
		if f.ids == nil {
			f.ids = make(map[FileID]struct{})
		}
		f.ids[id] = struct{}{}
	}
}

// starting tells where the keys of a kind begin. It is asked before the snapshot in which they are looked for.
func (d *Dataset) starting(kind byte) start {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.todo.starts[kind]
}

// begins notes that the keys of a kind began at low when they were looked for from s on.
func (d *Dataset) begins(kind byte, s start, low uint64) {
	if low == s.low {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.todo.starts[kind].sets == s.sets {
		d.todo.starts[kind].low = low
	}
}

// scanKind is scan of all keys of a kind that is numbered.
func (d *Dataset) scanKind(kind byte, do func(rest, value []byte) error) error {
	s := d.starting(kind)
	if s.low == math.MaxUint64 {
		return nil
	}
	low := uint64(math.MaxUint64)
	err := d.view(func(x *tx) error {
		return x.scanFrom(d.key(kind), d.key(kind, s.low), func(rest, value []byte) error {
			low = min(low, number(rest, 0))
			return do(rest, value)
		})
	})
	if err == nil {
		d.begins(kind, s, low)
	}
	return err
}

// firstOf returns the first key of a kind that is numbered, without the kind; nil if there is none.
func (d *Dataset) firstOf(kind byte) (rest []byte, err error) {
	err = d.scanKind(kind, func(r, _ []byte) error {
		rest = bytes.Clone(r)
		return errStop
	})
	return rest, err
}

// filesOf returns the files that have a key of a kind, at most as many as are remembered; more says that there are others.
func (d *Dataset) filesOf(kind byte) (ids []FileID, more bool, err error) {
	d.mu.Lock()
	f := &d.todo.files[kind]
	if f.whole {
		ids = make([]FileID, 0, len(f.ids))
		for id := range f.ids {
			ids = append(ids, id)
		}
	}
	d.mu.Unlock()
	if ids != nil {
		slices.SortFunc(ids, func(a, b FileID) int { return bytes.Compare(a[:], b[:]) })
		return ids, false, nil
	}
	return d.findFiles(kind)
}

// findFiles is filesOf from the database. Few enough are remembered from now on: nothing is committed meanwhile.
func (d *Dataset) findFiles(kind byte) (ids []FileID, more bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	err = d.scan(d.key(kind), func(rest, _ []byte) error {
		if len(ids) == d.todo.most {
			more = true
			return errStop
		}
		ids = append(ids, FileID(rest))
		return nil
	})
	if err != nil || more {
		return ids, more, err
	}
	f := fileSet{ids: make(map[FileID]struct{}, len(ids)), whole: true}
	for _, id := range ids {
		f.ids[id] = struct{}{}
	}
	d.todo.files[kind] = f
	return ids, false, nil
}

// eachFile calls do with each file that has a key of a kind; do may delete it.
func (d *Dataset) eachFile(kind byte, do func(FileID) error) error {
	ids, more, err := d.filesOf(kind)
	if more {
		return d.scan(d.key(kind), func(rest, _ []byte) error { return do(FileID(rest)) })
	}
	for i := 0; err == nil && i < len(ids); i++ {
		err = do(ids[i])
	}
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

// glance is a snapshot with what is remembered of it.
type glance struct {
	*tx
	starts [256]start
	files  [256]int // how many have a key of a kind; -1: not remembered
}

// glance runs do with a snapshot and what is remembered of the same moment.
func (d *Dataset) glance(do func(g *glance) error) error {
	g := &glance{tx: &tx{d: d}}
	d.mu.Lock()
	g.t = d.cfg.DB.NewTransaction(false)
	g.starts = d.todo.starts
	for kind, f := range d.todo.files {
		if g.files[kind] = len(f.ids); !f.whole {
			g.files[kind] = -1
		}
	}
	d.mu.Unlock()
	defer g.t.Discard()
	return do(g)
}

// count returns how many keys there are of a kind, or at most most.
func (g *glance) count(kind byte, most int) (n int, err error) {
	if named[kind] && g.files[kind] >= 0 {
		return min(g.files[kind], most), nil
	}
	if numbered[kind] && g.starts[kind].low == math.MaxUint64 {
		return 0, nil
	}
	from := g.d.key(kind)
	if numbered[kind] {
		from = g.d.key(kind, g.starts[kind].low)
	}
	err = g.scanFrom(g.d.key(kind), from, func([]byte, []byte) error {
		if n++; n >= most {
			return errStop
		}
		return nil
	})
	return n, err
}
