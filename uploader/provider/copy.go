package provider

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastfs/holdfast/uploader/provider/pb"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// held is a copy in memory, while it is used and a while after.
type held struct {
	id copyID

	mu      sync.Mutex // held over commits and verification of this copy
	rec     *pb.Copy   // as committed; replaced, never changed; nil once the copy is gone
	stale   bool       // a commit failed: rec may not be what the database has
	have    seal.Bitmap
	touched time.Time // last segment that came
	segs    *seal.Map // nil until known or read
	synced  bool      // the file's name is durable

	fileMu sync.Mutex // guards f; taken after mu or alone
	f      file

	// Guarded by table.mu.
	refs  int
	stamp uint64
	dead  bool // the copy is gone: to be forgotten by the last drop
}

// table has the copies in memory: those in use, and some that were used last, with their files open.
type table struct {
	max int

	mu    sync.Mutex
	clock uint64
	all   map[copyID]*held
}

func newTable(max int) *table { return &table{max: max, all: make(map[copyID]*held)} }

// take returns the copy's place in memory, empty where it is new; every take needs a drop.
func (t *table) take(id copyID) *held {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.all[id]
	if h == nil {
		h = &held{id: id, stale: true}
		t.all[id] = h
	}
	t.clock++
	h.refs, h.stamp = h.refs+1, t.clock
	return h
}

// drop ends one take. The copy that was not used longest leaves when there are too many.
func (t *table) drop(h *held) error {
	t.mu.Lock()
	h.refs--
	var out *held
	if h.dead && h.refs == 0 {
		out = h
		delete(t.all, h.id)
	} else if len(t.all) > t.max {
		for _, o := range t.all {
			if o.refs == 0 && (out == nil || o.stamp < out.stamp) {
				out = o
			}
		}
		if out != nil {
			delete(t.all, out.id)
		}
	}
	t.mu.Unlock()
	if out == nil {
		return nil
	}
	return out.close()
}

// kill makes the last drop of h close its file, whose bytes the disk then gets back.
func (t *table) kill(h *held) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h.dead = true
}

func (t *table) closeAll() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for id, h := range t.all {
		errs = append(errs, h.close())
		delete(t.all, id)
	}
	return errors.Join(errs...)
}

func (h *held) close() error {
	h.fileMu.Lock()
	defer h.fileMu.Unlock()
	if h.f == nil {
		return nil
	}
	f := h.f
	h.f = nil
	return f.Close()
}

// use takes a copy, with its lock and its record read. The copy may be gone: then rec is nil.
func (p *Provider) use(id copyID) (*held, error) {
	h := p.table.take(id)
	h.mu.Lock()
	if err := p.refresh(h); err != nil {
		p.leave(h)
		return nil, err
	}
	return h, nil
}

// leave ends a use.
func (p *Provider) leave(h *held) {
	h.mu.Unlock()
	p.drop(h)
}

// drop ends a take that holds no lock.
func (p *Provider) drop(h *held) {
	if err := p.table.drop(h); err != nil {
		p.log.Warn("close chunk file", keyError, err)
	}
}

// refresh reads the record where what is in memory may not be it.
func (p *Provider) refresh(h *held) error {
	if !h.stale {
		return nil
	}
	var rec pb.Copy
	found := false
	err := p.cfg.DB.View(func(txn *badger.Txn) (err error) {
		found, err = get(txn, p.copyKey(h.id), &rec)
		return err
	})
	if err != nil {
		return fmt.Errorf("read record of chunk copy: %w", err)
	}
	if old := h.rec; old != nil { // a commit of which nothing is known
		now := &rec
		if !found {
			now = nil
		}
		p.books.move(writerOf(old), shareOf(old), shareOf(now))
	}
	h.rec, h.stale = nil, false
	if found {
		h.rec = &rec
		h.have = haveOf(&rec)
	}
	return nil
}

func writerOf(r *pb.Copy) peer.ID { return peer.ID(r.Writer) }

func haveOf(r *pb.Copy) (b seal.Bitmap) {
	copy(b[:], r.Have)
	return b
}

func rootOf(r *pb.Copy) (root [32]byte) {
	copy(root[:], r.Root)
	return root
}

func keyOf(r *pb.Copy) (k seal.Key) {
	copy(k[:], r.Key)
	return k
}

func chunkOf(r *pb.Copy) (cid.Cid, error) {
	c, err := cid.Cast(r.Chunk)
	if err != nil {
		return cid.Undef, fmt.Errorf("read record of chunk copy: %w", err)
	}
	return c, nil
}

// segmentsOf returns how many segments a copy has.
func segmentsOf(r *pb.Copy) int { return seal.SegmentCount(int64(r.Bytes)) }

// linkOf returns the link of a copy, or nil.
func linkOf(r *pb.Copy, id seal.LinkID) *pb.Link {
	if r == nil || r.Deleting {
		return nil
	}
	i := slices.IndexFunc(r.Links, func(l *pb.Link) bool { return string(l.Id) == string(id[:]) })
	if i < 0 {
		return nil
	}
	return r.Links[i]
}

// usable says whether a copy is here in full and a reader of it was never disappointed.
func usable(r *pb.Copy) bool { return r != nil && r.Whole && !r.Damaged && !r.Deleting }

// open returns the copy's file, which stays open until the last drop at least.
func (p *Provider) open(h *held) (file, error) {
	h.fileMu.Lock()
	defer h.fileMu.Unlock()
	if h.f != nil {
		return h.f, nil
	}
	f, err := p.folder.Open(h.id.name())
	if err != nil {
		return nil, fmt.Errorf("open chunk file: %w", err)
	}
	h.f = f
	return f, nil
}

// ending is a link that leaves a copy, and what is remembered of it; nil is nothing.
type ending struct {
	id  seal.LinkID
	ref *pb.LinkRef
}

// change commits a new record of a copy, made by fn from the old one, with all keys that follow from
// it and what more sets. Books follow. The copy's lock is held; ended links were taken out by fn.
func (p *Provider) change(h *held, fn func(r *pb.Copy), more func(txn *badger.Txn) error, ended ...ending) error {
	old := h.rec
	rec := proto.Clone(old).(*pb.Copy)
	fn(rec)
	before, after := shareOf(old), shareOf(rec)
	writer := writerOf(rec)
	commit := p.commit
	if len(ended) > 0 {
		commit = p.commitEnd
	}
	err := commit(func(txn *badger.Txn) error {
		if err := p.putCopy(txn, h.id, old, rec); err != nil {
			return err
		}
		for _, e := range ended {
			if err := p.putEnding(txn, writer, e); err != nil {
				return err
			}
		}
		if more == nil {
			return nil
		}
		return more(txn)
	})
	if err != nil {
		h.stale = true
		return err
	}
	h.rec = rec
	p.books.move(writer, before, after)
	for _, e := range ended {
		if e.ref != nil {
			p.tombstones.Add(1)
		}
	}
	return nil
}

// putCopy writes a record and the keys that point to it.
func (p *Provider) putCopy(txn *badger.Txn, id copyID, old, rec *pb.Copy) error {
	if err := put(txn, p.copyKey(id), rec); err != nil {
		return err
	}
	if was, is := dueOf(old), dueOf(rec); old == nil || was != is {
		if old != nil {
			if err := txn.Delete(p.dueKey(was, id)); err != nil {
				return err
			}
		}
		if err := txn.Set(p.dueKey(is, id), nil); err != nil {
			return err
		}
	}
	for _, l := range rec.Links {
		if old != nil && linkOf(old, seal.LinkID(l.Id)) != nil {
			continue
		}
		if err := put(txn, p.linkKey(writerOf(rec), seal.LinkID(l.Id)), &pb.LinkRef{Copy: id[:]}); err != nil {
			return err
		}
	}
	return nil
}

// putEnding turns a link's entry into a tombstone, or removes it.
func (p *Provider) putEnding(txn *badger.Txn, writer peer.ID, e ending) error {
	key := p.linkKey(writer, e.id)
	if e.ref == nil {
		return txn.Delete(key)
	}
	if err := put(txn, key, e.ref); err != nil {
		return err
	}
	if err := txn.Set(p.key(tagForget, timePart(e.ref.Forget), peerPart(writer), e.id[:]), nil); err != nil {
		return err
	}
	c, err := cid.Cast(e.ref.Chunk)
	if err != nil {
		return err
	}
	return put(txn, p.noticeKey(writer, c), &pb.Notice{Code: e.ref.Code, Forget: e.ref.Forget})
}

// dueOf returns when a copy is to be looked at: the first time that something may end.
func dueOf(r *pb.Copy) int64 {
	if r == nil || r.Deleting || len(r.Links) == 0 {
		return 0
	}
	var due int64
	for i, l := range r.Links {
		at := l.Expiry
		switch {
		case len(l.Pledge) == 0:
			at = min(l.Deadline, l.GiveUp)
		case !l.Paid:
			at = min(l.PayBy, l.Expiry)
		}
		if i == 0 || at < due {
			due = at
		}
	}
	return due
}

// isMissing says that a file is not there, or not as long as it has to be.
func isMissing(err error) bool { return errors.Is(err, os.ErrNotExist) }
