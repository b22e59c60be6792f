package blockcache

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ipfs/go-cid"
)

// granuleShift is the size, as a power of two, of the stretch of a pack that one access bit stands for.
const granuleShift = 14

// pack is an append-only file of records. It ends its life when it is rewritten or evicted.
type pack struct {
	blob

	// Guarded by Store.packMu.
	size    int64 // end of what is reserved
	sealed  bool  // nothing is appended any more
	indexed int64 // every record before it is in the index, durably

	live     atomic.Int64  // bytes of records the index points to
	busy     atomic.Int32  // appends that are not in the index yet
	leaving  atomic.Bool   // being emptied
	moved    atomic.Bool   // blocks were moved out, maybe by a sweep that came to no end
	verified atomic.Uint64 // epoch in which its records were last checked against their CIDs
	tick     atomic.Uint64 // when it was begun, or last spared
	pins     pinCheck
	flow     writeback

	bitsMu sync.Mutex
	bits   []uint64 // one per granule: something in it was read since the pack was last spared
}

// maxPackBytes is where a pack ends and the next begins.
const maxPackBytes = 1 << 30

// packWeight is what a block counts in its pack.
func packWeight(key string, n uint32) int64 { return headerBytes + 2 + int64(len(key)) + int64(n) }

// touch notes that the block at off was read.
func (p *pack) touch(off uint64) {
	g := off >> granuleShift
	if g > maxPackBytes>>granuleShift {
		return
	}
	p.bitsMu.Lock()
	for uint64(len(p.bits)) <= g/64 {
		p.bits = append(p.bits, make([]uint64, 1+len(p.bits))...)
	}
	p.bits[g/64] |= 1 << (g % 64)
	p.bitsMu.Unlock()
}

// touched reports whether something near off was read.
func (p *pack) touched(off uint64) bool {
	g := off >> granuleShift
	p.bitsMu.Lock()
	defer p.bitsMu.Unlock()
	return g/64 < uint64(len(p.bits)) && p.bits[g/64]&(1<<(g%64)) != 0
}

// spare gives the pack another round among the files to evict.
func (p *pack) spare(now uint64) {
	p.bitsMu.Lock()
	clear(p.bits)
	p.bitsMu.Unlock()
	p.tick.Store(now)
}

func packName(id uint64) string { return fmt.Sprintf("%s/%016x", packDir, id) }

// loose is a block on its way into a pack.
type loose struct {
	cid  cid.Cid
	data []byte
	crc  uint32
}

// maxAppend bounds what is appended in one go, in bytes.
const maxAppend = 4 << 20

// appendLoose writes blocks to the active pack and tells where each lies. The pack is busy until
// done is called, which is after the places are in the index. The caller has reserved the room.
func (s *Store) appendLoose(ls []loose) (ps []place, done func(), err error) {
	var total int64
	for _, l := range ls {
		total += recordBytes(l.cid, len(l.data))
	}
	p, at, err := s.claimPack(total)
	if err != nil {
		s.used.Add(-total)
		return nil, nil, err
	}
	ps, err = s.writeRecords(p, at, ls)
	if err != nil {
		s.unclaimPack(p, at, total)
		return nil, nil, fmt.Errorf("write pack: %w", fullError(err))
	}
	s.markDirty(&p.blob)
	s.flowOn(&p.blob, &p.flow, at, total)
	return ps, func() { p.pins.reset(); p.busy.Add(-1) }, nil
}

// unclaimPack ends a claim whose write failed. The room comes back if nobody wrote behind it;
// otherwise it stays as dead weight.
func (s *Store) unclaimPack(p *pack, at, n int64) {
	s.packMu.Lock()
	defer s.packMu.Unlock()
	if p.size == at+n {
		p.size = at
		s.used.Add(-n)
	}
	p.busy.Add(-1)
}

// claimPack reserves n bytes at the end of the active pack, beginning a new one when it is full.
func (s *Store) claimPack(n int64) (*pack, int64, error) {
	s.packMu.Lock() // held over the creation of a file, once a pack
	defer s.packMu.Unlock()
	p := s.active
	if p != nil && p.size > 0 && p.size+n > s.packBytes {
		p.sealed = true
		p = nil
	}
	if p == nil || p.sealed {
		var err error
		if p, err = s.newPack(); err != nil {
			return nil, 0, err
		}
		s.active = p
	}
	at := p.size
	p.size += n
	p.busy.Add(1)
	return p, at, nil
}

// newPack creates a pack's file and makes it known.
func (s *Store) newPack() (*pack, error) {
	id := s.nextID()
	p := &pack{blob: blob{id: id, name: packName(id)}}
	p.verified.Store(s.epoch)
	p.tick.Store(s.clock.Add(1))
	f, err := s.fs.Create(p.name)
	if err != nil {
		return nil, fmt.Errorf("create pack: %w", fullError(err))
	}
	if _, err := s.fds.adopt(&p.blob, f); err != nil {
		return nil, fmt.Errorf("create pack: %w", err)
	}
	s.fds.release(&p.blob)
	s.newFiles.Store(true)
	s.mu.Lock()
	s.packs[id] = p
	s.mu.Unlock()
	return p, nil
}

// joinBytes is the largest block that is copied to be written together with its neighbours.
const joinBytes = 256 << 10

// writeRecords writes records one after another from at. Small ones go out in one write.
func (s *Store) writeRecords(p *pack, at int64, ls []loose) ([]place, error) {
	f, err := s.fds.acquire(&p.blob)
	if err != nil {
		return nil, err
	}
	defer s.fds.release(&p.blob)
	bufp := s.buffers.Get().(*[]byte)
	buf := (*bufp)[:0]
	defer func() { *bufp = buf[:0]; s.buffers.Put(bufp) }()
	flush := func() error {
		if len(buf) == 0 {
			return nil
		}
		_, err := f.WriteAt(buf, at)
		at += int64(len(buf))
		buf = buf[:0]
		return err
	}
	ps := make([]place, 0, len(ls))
	for _, l := range ls {
		buf = appendHeader(buf, l.cid, len(l.data), l.crc)
		ps = append(ps, place{
			kind: inPack, id: p.id, off: uint64(at) + uint64(len(buf)), n: uint32(len(l.data)), crc: l.crc,
		})
		if len(l.data) <= joinBytes {
			buf = append(buf, l.data...)
			if len(buf) < cap(buf)-joinBytes-headerBytes-maxCIDBytes {
				continue
			}
			if err := flush(); err != nil {
				return nil, err
			}
			continue
		}
		if err := flush(); err != nil {
			return nil, err
		}
		if _, err := f.WriteAt(l.data, at); err != nil {
			return nil, err
		}
		at += int64(len(l.data))
	}
	return ps, flush()
}
