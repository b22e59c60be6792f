package dataset

import "encoding/binary"

// The kinds of keys below the prefix. Numbers are big-endian, so that their order is that of the keys.
const (
	keySeq      = 'n' // → the next number not yet lent out
	keyCode     = 'C' // → k and m
	keyJournal  = 'j' // number → event
	keyTold     = 'v' // file → version told of last
	keyClosed   = 'c' // file → to be imported
	keyFile     = 'f' // file → fileRecord
	keyNameless = 'z' // file → may have no name any more
	keyNames    = 'r' // file, directory, hash, name → entry that has the file
	keyRelink   = 'y' // file → not all its entries have its link
	keyDir      = 'd' // directory → dirRecord
	keyEntry    = 'e' // directory, hash, name → entryRecord
	keyShard    = 's' // directory, level, hash prefix → shard of a HAMT, if it is as it should be
	keyDirty    = 'D' // parent, directory → it or something below it is to be built
	keyRelist   = 'i' // directory → something in it was missed
	keyDoomed   = 'q' // directory → to be taken apart, out of the tree already
	keyOwner    = 'o' // owner → its list is to be taken apart (or is being made, before a crash)
	keyList     = 'l' // owner, piece → blocks that are counted
	keyDraft    = 'L' // owner, piece → blocks of a file that is being read: not counted, and perhaps not readable yet
	keyMark     = 'k' // mark → number before which the queue must be empty; 0 while in use
	keyBlock    = 'b' // digest → blockRecord
	keyQueue    = 'p' // number → block that waits for a stripe
	keyGroup    = 'g' // group → groupHead
	keyStripes  = 'G' // group, piece → stripes
	keySparse   = 'h' // group → under half live
	keyMoving   = 'm' // group → its live blocks go to others
	keyEmpty    = 'R' // group → without live blocks
	keySmall    = 't' // size class, group → placed and small
	keyWaits    = 'W' // group, other → not to be released before the other is placed
	keyAwaited  = 'w' // other, group → the same
	keyLatest   = 'M' // → manifest written last
	keyPlaced   = 'N' // → manifest placed last
	keyPart     = 'P' // digest → partRecord
	keyChanged  = 'x' // → something differs from the latest manifest
	keyWriting  = 'u' // → manifest being written, and the one that it supersedes
	keyBroken   = 'B' // → the latest manifest names a group that was released before it was placed
	keyUnplaced = 'U' // group → formed, not placed
	keyLost     = 'X' // group → was placed and is not any more, with live blocks
	keyRestage  = 'Y' // group → its blocks are to be in the store again
	keyGive     = 'a' // group → the Sink is to be told
)

// key makes a key of a kind and numbers.
func (d *Dataset) key(kind byte, numbers ...uint64) []byte {
	k := make([]byte, 0, len(d.cfg.Prefix)+1+8*len(numbers)+32)
	k = append(append(k, d.cfg.Prefix...), kind)
	for _, n := range numbers {
		k = binary.BigEndian.AppendUint64(k, n)
	}
	return k
}

func (d *Dataset) fileKey(kind byte, id FileID) []byte { return append(d.key(kind), id[:]...) }

func (d *Dataset) digestKey(kind byte, h digest) []byte { return append(d.key(kind), h[:]...) }

// spot is where an entry is.
type spot struct {
	dir  uint64
	hash uint64 // of name, as a HAMT has it
	name string
}

func (d *Dataset) entryKey(s spot) []byte { return append(d.key(keyEntry, s.dir, s.hash), s.name...) }

func (d *Dataset) nameKey(id FileID, s spot) []byte {
	k := d.fileKey(keyNames, id)
	k = binary.BigEndian.AppendUint64(k, s.dir)
	k = binary.BigEndian.AppendUint64(k, s.hash)
	return append(k, s.name...)
}

// shardKey is that of the shard at a level, 1 or deeper, on the way to a hash.
func (d *Dataset) shardKey(dir uint64, level int, hash uint64) []byte {
	k := append(d.key(keyShard, dir), byte(level))
	var h [8]byte
	binary.BigEndian.PutUint64(h[:], hash)
	return append(k, h[:level]...)
}

// number reads the i-th number of a tail.
func number(tail []byte, i int) uint64 {
	if len(tail) < 8*(i+1) {
		return 0
	}
	return binary.BigEndian.Uint64(tail[8*i:])
}

// spotOf reads a spot from a tail.
func spotOf(tail []byte) spot {
	if len(tail) < 16 {
		return spot{}
	}
	return spot{dir: number(tail, 0), hash: number(tail, 1), name: string(tail[16:])}
}
