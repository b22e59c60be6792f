package dag

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
	"github.com/twmb/murmur3"
)

const (
	maxNameBytes   = 255
	maxTargetBytes = 4095
	arenaBytes     = 1 << 16 // of one piece of a directory's records
)

// Symlink makes a symbolic link. The target is kept as it is; ErrName if no file system could hold it.
func (b *Builder) Symlink(ctx context.Context, target string, m Meta) (Link, error) {
	if target == "" || len(target) > maxTargetBytes || strings.IndexByte(target, 0) >= 0 {
		return Link{}, fmt.Errorf("symbolic link to %.64q: %w", target, ErrName)
	}
	blk := symlinkNode(target, b.meta(m))
	if err := b.putOne(ctx, blk); err != nil {
		return Link{}, fmt.Errorf("put symbolic link: %w", err)
	}
	return Link{CID: blk.Cid(), Bytes: uint64(len(blk.RawData())), FileBytes: uint64(len(target))}, nil
}

// Dir collects a directory's entries. It keeps about 85 bytes an entry beside the name, and needs no more to end, so
// that a million names take about 100 MB. Use it from one goroutine.
type Dir struct {
	b       *Builder
	meta    Meta
	arena   [][]byte // records, each whole in one piece
	entries []dirEntry
	table   []uint32 // open addressing on the hash: index into entries plus one
	bytes   int      // the links as a plain directory would hold them
}

// dirEntry finds a record, and is what is sorted.
type dirEntry struct {
	hash  uint64 // of the name, as the HAMT has it
	piece uint32 // of the arena
	off   uint32
}

// record is an entry: bytes of the CID, the name, and the cumulative size.
type record struct {
	cid   []byte
	name  []byte
	tsize uint64
}

// Dir begins a directory. m is kept with Config.Preserve.
func (b *Builder) Dir(m Meta) *Dir { return &Dir{b: b, meta: b.meta(m)} }

// CheckName reports why a UnixFS directory cannot hold name, or nil; the error wraps ErrName.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: empty", ErrName)
	case name == "." || name == "..":
		return fmt.Errorf("%w: %q is taken", ErrName, name)
	case len(name) > maxNameBytes:
		return fmt.Errorf("%w: %.32q… has %d bytes, more than %d", ErrName, name, len(name), maxNameBytes)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("%w: %q has a slash or a zero byte", ErrName, name)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: %q is not UTF-8", ErrName, name)
	}
	return nil
}

// Add takes an entry. The error wraps ErrName if the name cannot be held or is there already.
func (d *Dir) Add(name string, l Link) error {
	if err := CheckName(name); err != nil {
		return err
	}
	h := murmur3.StringSum64(name)
	if _, ok := d.find(h, name); ok {
		return fmt.Errorf("%w: %q is there twice", ErrName, name)
	}
	d.append(h, name, l)
	return nil
}

// set adds an entry or replaces the one of the same name.
func (d *Dir) set(name string, l Link) {
	h := murmur3.StringSum64(name)
	i, ok := d.find(h, name)
	if !ok {
		d.append(h, name, l)
		return
	}
	old := d.record(d.entries[i])
	d.bytes += linkBytes(l.CID.ByteLen(), len(name), l.Bytes) - linkBytes(len(old.cid), len(name), old.tsize)
	piece, off := d.store(name, l)
	d.entries[i] = dirEntry{h, piece, off}
}

// get returns the entry called name.
func (d *Dir) get(name string) (Link, bool) {
	i, ok := d.find(murmur3.StringSum64(name), name)
	if !ok {
		return Link{}, false
	}
	r := d.record(d.entries[i])
	_, c, err := cid.CidFromBytes(r.cid)
	return Link{CID: c, Bytes: r.tsize}, err == nil
}

// find returns the index of the entry called name.
func (d *Dir) find(h uint64, name string) (int, bool) {
	if len(d.table) == 0 {
		return 0, false
	}
	mask := uint64(len(d.table) - 1)
	for at := h & mask; d.table[at] != 0; at = (at + 1) & mask {
		i := int(d.table[at] - 1)
		if d.entries[i].hash == h && string(d.record(d.entries[i]).name) == name {
			return i, true
		}
	}
	return 0, false
}

func (d *Dir) append(h uint64, name string, l Link) {
	piece, off := d.store(name, l)
	d.entries = append(d.entries, dirEntry{h, piece, off})
	d.bytes += linkBytes(l.CID.ByteLen(), len(name), l.Bytes)
	if len(d.entries)*4 >= len(d.table)*3 {
		d.table = make([]uint32, max(8, 2*len(d.table)))
		for i := range d.entries {
			d.index(i)
		}
		return
	}
	d.index(len(d.entries) - 1)
}

// index puts entry i into the table.
func (d *Dir) index(i int) {
	mask := uint64(len(d.table) - 1)
	at := d.entries[i].hash & mask
	for d.table[at] != 0 {
		at = (at + 1) & mask
	}
	d.table[at] = uint32(i + 1)
}

// store writes a record to the arena.
func (d *Dir) store(name string, l Link) (piece, off uint32) {
	c := l.CID.KeyString()
	need := 3*binary.MaxVarintLen32 + len(c) + len(name) + binary.MaxVarintLen64
	last := len(d.arena) - 1
	if last < 0 || cap(d.arena[last])-len(d.arena[last]) < need {
		size := arenaBytes
		if last < 0 {
			size = 512 // most directories are small
		} else if last == 0 {
			size = 8 << 10
		}
		d.arena = append(d.arena, make([]byte, 0, max(size, need)))
		last++
	}
	p := d.arena[last]
	off = uint32(len(p))
	p = append(binary.AppendUvarint(p, uint64(len(c))), c...)
	p = append(binary.AppendUvarint(p, uint64(len(name))), name...)
	d.arena[last] = binary.AppendUvarint(p, l.Bytes)
	return uint32(last), off
}

// record reads an entry; its slices are the arena's.
func (d *Dir) record(e dirEntry) record {
	p := d.arena[e.piece][e.off:]
	take := func() []byte {
		size, n := binary.Uvarint(p)
		part := p[n : n+int(size)]
		p = p[n+int(size):]
		return part
	}
	r := record{cid: take(), name: take()}
	r.tsize, _ = binary.Uvarint(p)
	return r
}

// Close ends the directory: one block or, when that would be longer than 256 KiB, a HAMT. The Dir is of no use
// afterwards.
func (d *Dir) Close(ctx context.Context) (Link, error) {
	d.table = nil
	data := dirData(d.meta)
	size := d.bytes + len(appendData(nil, data))
	var root child
	var err error
	if size > shardingBytes {
		root, err = d.shard(ctx)
	} else {
		root, err = d.plain(ctx, data, size)
	}
	if err != nil {
		return Link{}, fmt.Errorf("build directory: %w", err)
	}
	return Link{CID: root.cid, Bytes: root.dagBytes}, nil
}

// plain makes the directory one block, its links sorted by name.
func (d *Dir) plain(ctx context.Context, data []byte, size int) (child, error) {
	slices.SortFunc(d.entries, func(x, y dirEntry) int { return bytes.Compare(d.record(x).name, d.record(y).name) })
	raw := make([]byte, 0, size)
	var root child
	for _, e := range d.entries {
		r := d.record(e)
		raw = appendLink(raw, r.cid, "", string(r.name), r.tsize)
		root.dagBytes += r.tsize
	}
	blk := newBlock(cid.DagProtobuf, appendData(raw, data))
	root.cid = blk.Cid()
	root.dagBytes += uint64(len(blk.RawData()))
	return root, d.b.putOne(ctx, blk)
}
