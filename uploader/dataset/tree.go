package dataset

import (
	"bytes"
	"os"
	"path"
	"strings"

	"github.com/twmb/murmur3"

	"github.com/holdfastfs/holdfast/uploader/dag"
)

// The directory tree is kept as names below numbered directories, in the order of their hashes: a directory that moves
// is one name that moves, and a shard of a HAMT is a run of neighbours.

const rootDir = 1 // number of the root

// dirRecord is a directory.
type dirRecord struct {
	parent  uint64 // 0: the root's
	name    string
	ident   FileID
	mode    os.FileMode
	modTime int64
	shown   uint64 // bytes of the links that a plain directory of the entries shown would have
	sharded bool   // keyShard is kept
	link    dag.Link
	bytes   uint64 // of the root block
}

func (r dirRecord) encode() []byte {
	var e encoder
	e.num(r.parent)
	e.text(r.name)
	e.raw(r.ident[:])
	e.num(uint64(r.mode))
	e.signed(r.modTime)
	e.num(r.shown)
	sharded := uint64(0)
	if r.sharded {
		sharded = 1
	}
	e.num(sharded)
	e.cid(r.link.CID)
	e.num(r.link.Bytes)
	e.num(r.bytes)
	return e
}

func decodeDir(v []byte) (dirRecord, error) {
	d := decoder{rest: v}
	r := dirRecord{
		parent: d.num(), name: d.text(), ident: d.fileID(), mode: os.FileMode(d.num()), modTime: d.signed(),
		shown: d.num(), sharded: d.num() == 1,
	}
	r.link.CID = d.cid()
	r.link.Bytes, r.bytes = d.num(), d.num()
	return r, d.end("directory")
}

// entryRecord is a name in a directory.
type entryRecord struct {
	kind    Kind
	file    FileID   // of a regular file
	dir     uint64   // of a directory
	link    dag.Link // undefined: not shown yet
	modTime int64    // of a symbolic link
}

func (r entryRecord) encode() []byte {
	e := encoder{byte(r.kind)}
	e.raw(r.file[:])
	e.num(r.dir)
	e.cid(r.link.CID)
	e.num(r.link.Bytes)
	e.signed(r.modTime)
	return e
}

func decodeEntry(v []byte) (entryRecord, error) {
	d := decoder{rest: v}
	var r entryRecord
	if b := d.take(1); b != nil {
		r.kind = Kind(b[0])
	}
	r.file, r.dir = d.fileID(), d.num()
	r.link.CID = d.cid()
	r.link.Bytes, r.modTime = d.num(), d.signed()
	return r, d.end("entry")
}

func spotIn(dir uint64, name string) spot {
	return spot{dir: dir, hash: murmur3.StringSum64(name), name: name}
}

func (x *tx) dir(id uint64) (r dirRecord, found bool, err error) {
	v, err := x.get(x.d.key(keyDir, id))
	if v == nil || err != nil {
		return r, false, err
	}
	r, err = decodeDir(v)
	return r, err == nil, err
}

func (x *tx) setDir(id uint64, r dirRecord) error { return x.set(x.d.key(keyDir, id), r.encode()) }

func (x *tx) entry(s spot) (r entryRecord, found bool, err error) {
	v, err := x.get(x.d.entryKey(s))
	if v == nil || err != nil {
		return r, false, err
	}
	r, err = decodeEntry(v)
	return r, err == nil, err
}

// resolve finds a path in the tree as it is recorded.
func (x *tx) resolve(p string) (r entryRecord, found bool, err error) {
	r = entryRecord{kind: Directory, dir: rootDir}
	for _, name := range split(p) {
		if r.kind != Directory {
			return r, false, nil
		}
		if r, found, err = x.entry(spotIn(r.dir, name)); !found || err != nil {
			return r, false, err
		}
	}
	return r, true, nil
}

// spotOfPath finds where an entry of that path would be.
func (x *tx) spotOfPath(p string) (s spot, found bool, err error) {
	dir, name := path.Split(p)
	parent, found, err := x.resolve(strings.TrimSuffix(dir, "/"))
	if !found || err != nil || parent.kind != Directory || name == "" {
		return s, false, err
	}
	return spotIn(parent.dir, name), true, nil
}

func split(p string) []string {
	if p == "" {
		return nil
	}
	return strings.Split(p, "/")
}

// pathOf is where a directory is in the tree as it is recorded.
func (x *tx) pathOf(id uint64) (p string, found bool, err error) {
	for id != rootDir {
		r, found, err := x.dir(id)
		if !found || err != nil {
			return "", false, err
		}
		p = path.Join(r.name, p)
		id = r.parent
	}
	return p, true, nil
}

// markDirty notes that a directory is to be built, and so all above it: one that is noted has all above it noted.
func (x *tx) markDirty(id uint64) error {
	for {
		r, found, err := x.dir(id)
		if !found || err != nil {
			return err
		}
		key := x.d.key(keyDirty, r.parent, id)
		v, err := x.get(key)
		if v != nil || err != nil {
			return err
		}
		if err := x.flag(key); err != nil {
			return err
		}
		if r.parent == 0 {
			return nil
		}
		id = r.parent
	}
}

// put makes, replaces or, with a zero kind, removes an entry. A directory that it held is doomed unless it is kept.
func (x *tx) put(s spot, now entryRecord, keep bool) error {
	was, had, err := x.entry(s)
	if err != nil || !had && now.kind == 0 || had && was == now {
		return err
	}
	if had {
		if err := x.unlink(s, was, now, keep); err != nil {
			return err
		}
	}
	if now.kind == 0 {
		err = x.del(x.d.entryKey(s))
	} else {
		err = x.set(x.d.entryKey(s), now.encode())
	}
	if err == nil && now.kind == Regular && (!had || was.file != now.file) {
		if err = x.flag(x.d.nameKey(now.file, s)); err == nil {
			err = x.awaitImport(now)
		}
	}
	if err != nil {
		return err
	}
	return x.relink(s, was.link, now.link)
}

// awaitImport has a file imported that has a name now and was not yet. So every file of the tree is imported, or is to
// be: nothing else ends that but its import, or its last name.
func (x *tx) awaitImport(r entryRecord) error {
	if r.link.CID.Defined() {
		return nil
	}
	_, found, err := x.file(r.file)
	if err != nil || found {
		return err
	}
	return x.flag(x.d.fileKey(keyClosed, r.file))
}

// unlink takes away what an entry stood for.
func (x *tx) unlink(s spot, was, now entryRecord, keep bool) error {
	switch {
	case was.kind == Regular && was.file != now.file:
		if err := x.del(x.d.nameKey(was.file, s)); err != nil {
			return err
		}
		return x.flag(x.d.fileKey(keyNameless, was.file))
	case was.kind == Directory && was.dir != now.dir && !keep:
		if err := x.del(x.d.key(keyDirty, s.dir, was.dir)); err != nil {
			return err
		}
		return x.flag(x.d.key(keyDoomed, was.dir))
	case was.kind == Symlink && was.link != now.link && !keep:
		return x.forget(digestOf(was.link.CID), 1)
	}
	return nil
}

// relink has a directory built again in which an entry links to something else.
func (x *tx) relink(s spot, was, now dag.Link) error {
	if was == now {
		return nil
	}
	r, found, err := x.dir(s.dir)
	if err != nil {
		return err
	}
	if !found {
		return corrupt("entry %q in directory %d, which is not there", s.name, s.dir)
	}
	r.shown -= shownBytes(s.name, was)
	r.shown += shownBytes(s.name, now)
	if err := x.setDir(s.dir, r); err != nil {
		return err
	}
	if r.sharded {
		if err := x.spoilShards(s); err != nil {
			return err
		}
	}
	return x.markDirty(s.dir)
}

// spoilShards drops the shards on the way to an entry.
func (x *tx) spoilShards(s spot) error {
	for level := 1; level < maxLevels; level++ {
		key := x.d.shardKey(s.dir, level, s.hash)
		v, err := x.get(key)
		if err != nil {
			return err
		}
		if v == nil {
			continue
		}
		sh, err := decodeShard(v)
		if err != nil {
			return err
		}
		if err := x.forget(digestOf(sh.link.CID), 1); err != nil {
			return err
		}
		if err := x.del(key); err != nil {
			return err
		}
	}
	return nil
}

// move gives an entry another place. What was there is gone.
func (x *tx) move(from, to spot) error {
	r, found, err := x.entry(from)
	if err != nil || !found || from == to {
		return err
	}
	if err := x.put(from, entryRecord{}, true); err != nil {
		return err
	}
	if err := x.put(to, entryRecord{}, false); err != nil {
		return err
	}
	if err := x.put(to, r, false); err != nil {
		return err
	}
	return x.moved(r, from, to)
}

// swap has two entries change places.
func (x *tx) swap(a, b spot) error {
	ra, foundA, err := x.entry(a)
	if err != nil {
		return err
	}
	rb, foundB, err := x.entry(b)
	if err != nil || !foundA || !foundB || a == b {
		return err
	}
	for _, s := range []spot{a, b} {
		if err := x.put(s, entryRecord{}, true); err != nil {
			return err
		}
	}
	if err := x.put(a, rb, false); err != nil {
		return err
	}
	if err := x.put(b, ra, false); err != nil {
		return err
	}
	if err := x.moved(ra, a, b); err != nil {
		return err
	}
	return x.moved(rb, b, a)
}

// moved tells a directory that it has another name.
func (x *tx) moved(r entryRecord, from, to spot) error {
	if r.kind != Directory {
		return nil
	}
	rec, found, err := x.dir(r.dir)
	if err != nil || !found {
		return err
	}
	rec.parent, rec.name = to.dir, to.name
	if err := x.setDir(r.dir, rec); err != nil {
		return err
	}
	key := x.d.key(keyDirty, from.dir, r.dir)
	if v, err := x.get(key); v == nil || err != nil {
		return err
	}
	if err := x.del(key); err != nil {
		return err
	}
	return x.markDirty(r.dir)
}

// dropDoomed takes apart the directories that are out of the tree.
func (d *Dataset) dropDoomed() error {
	for {
		rest, err := d.firstOf(keyDoomed)
		if rest == nil || err != nil {
			return err
		}
		if err := d.dropDir(number(rest, 0)); err != nil {
			return err
		}
	}
}

func (d *Dataset) dropDir(id uint64) error {
	err := d.commit(func(x *tx) error {
		r, found, err := x.dir(id)
		if err != nil || !found {
			return err
		}
		return x.del(d.key(keyDirty, r.parent, id))
	})
	if err == nil {
		err = d.drain(d.key(keyEntry, id), 32, func(x *tx, rest, value []byte) error {
			s := spot{dir: id, hash: number(rest, 0), name: string(rest[8:])}
			was, err := decodeEntry(value)
			if err != nil {
				return err
			}
			return x.unlink(s, was, entryRecord{}, false)
		})
	}
	if err == nil {
		err = d.dropShards(id)
	}
	if err != nil {
		return err
	}
	return d.commit(func(x *tx) error {
		r, found, err := x.dir(id)
		if err != nil {
			return err
		}
		if found && r.link.CID.Defined() {
			if err := x.forget(digestOf(r.link.CID), 1); err != nil {
				return err
			}
		}
		for _, key := range [][]byte{d.key(keyDir, id), d.key(keyRelist, id), d.key(keyDoomed, id)} {
			if err := x.del(key); err != nil {
				return err
			}
		}
		return nil
	})
}

// dropShards forgets all shards of a directory but its root block.
func (d *Dataset) dropShards(id uint64) error {
	return d.drain(d.key(keyShard, id), 64, func(x *tx, _, value []byte) error {
		sh, err := decodeShard(value)
		if err != nil {
			return err
		}
		return x.forget(digestOf(sh.link.CID), 1)
	})
}

// names lists the spots of a file, at most most of them.
func (d *Dataset) names(id FileID, most int) (out []spot, err error) {
	err = d.scan(d.fileKey(keyNames, id), func(rest, _ []byte) error {
		out = append(out, spotOf(bytes.Clone(rest)))
		if len(out) == most {
			return errStop
		}
		return nil
	})
	return out, err
}
