package exchange

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

const (
	announceVersion = 1
	announceBytes   = 1 + 8 + 8 // version, made, due: Unix seconds, big endian
)

// announcement is one CID that is kept announced.
type announcement struct {
	cid      cid.Cid
	made     time.Time // last success; zero for never
	due      time.Time // when to announce next
	failures int       // in a row; not kept over a restart
	running  bool      // an attempt is under way; then it is not on the heap
	at       int       // place on the heap
}

// announceKey is where an entry is stored.
func announceKey(c cid.Cid) ds.Key { return ds.NewKey(c.String()) }

func (q *AnnounceQueue) store(ctx context.Context, c cid.Cid, a announcement) error {
	v := make([]byte, 0, announceBytes)
	v = append(v, announceVersion)
	v = binary.BigEndian.AppendUint64(v, uint64(max(0, a.made.Unix())))
	v = binary.BigEndian.AppendUint64(v, uint64(max(0, a.due.Unix())))
	if err := q.cfg.Datastore.Put(ctx, announceKey(c), v); err != nil {
		return fmt.Errorf("store announcement: %w", err)
	}
	if err := q.cfg.Datastore.Sync(ctx, announceKey(c)); err != nil {
		return fmt.Errorf("sync announcement: %w", err)
	}
	return nil
}

func (q *AnnounceQueue) erase(ctx context.Context, c cid.Cid) error {
	if err := q.cfg.Datastore.Delete(ctx, announceKey(c)); err != nil {
		return fmt.Errorf("erase announcement: %w", err)
	}
	if err := q.cfg.Datastore.Sync(ctx, announceKey(c)); err != nil {
		return fmt.Errorf("sync announcement: %w", err)
	}
	return nil
}

// load reads all entries. One that can't be read is logged and left out.
func (q *AnnounceQueue) load(ctx context.Context) error {
	all, err := q.cfg.Datastore.Query(ctx, query.Query{})
	if err != nil {
		return fmt.Errorf("read announcements: %w", err)
	}
	defer all.Close()
	q.mu.Lock()
	defer q.mu.Unlock()
	for r := range all.Next() {
		if r.Error != nil {
			return fmt.Errorf("read announcements: %w", r.Error)
		}
		a, err := parseAnnouncement(r.Key, r.Value)
		if err != nil {
			q.cfg.Logger.Warn("announcement is damaged and left out", "key", r.Key, "err", err)
			continue
		}
		q.setLocked(a.cid, a.due)
		q.entries[a.cid].made = a.made
	}
	return nil
}

func parseAnnouncement(key string, v []byte) (announcement, error) {
	c, err := cid.Decode(ds.RawKey(key).BaseNamespace())
	if err != nil {
		return announcement{}, fmt.Errorf("parse key: %w", err)
	}
	if len(v) != announceBytes || v[0] != announceVersion {
		return announcement{}, fmt.Errorf("parse value: %d bytes of unknown form", len(v))
	}
	a := announcement{cid: c, due: time.Unix(int64(binary.BigEndian.Uint64(v[9:])), 0)}
	if made := int64(binary.BigEndian.Uint64(v[1:])); made > 0 {
		a.made = time.Unix(made, 0)
	}
	return a, nil
}

// dueHeap orders announcements by when they are due.
type dueHeap []*announcement

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	a := x.(*announcement)
	a.at = len(*h)
	*h = append(*h, a)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	old := *h
	a := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return a
}
