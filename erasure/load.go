package erasure

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/ipfs/go-cid"
)

// kept remembers the latest few decoded parts.
type kept[T any] struct {
	mu    sync.Mutex
	most  int
	order []cid.Cid     // the latest last; under mu
	parts map[cid.Cid]T // under mu
}

func (k *kept[T]) get(c cid.Cid) (part T, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if part, ok = k.parts[c]; ok {
		i := slices.Index(k.order, c)
		k.order = append(slices.Delete(k.order, i, i+1), c)
	}
	return part, ok
}

func (k *kept[T]) put(c cid.Cid, part T) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.parts == nil {
		k.parts = make(map[cid.Cid]T)
	}
	if _, ok := k.parts[c]; ok {
		return
	}
	if len(k.order) == k.most {
		delete(k.parts, k.order[0])
		k.order = slices.Delete(k.order, 0, 1)
	}
	k.order = append(k.order, c)
	k.parts[c] = part
}

// all returns the kept parts, the latest first.
func (k *kept[T]) all() []T {
	k.mu.Lock()
	defer k.mu.Unlock()
	parts := make([]T, 0, len(k.order))
	for _, c := range slices.Backward(k.order) {
		parts = append(parts, k.parts[c])
	}
	return parts
}

// load returns a part that is kept, or gets and decodes it.
func load[T any](ctx context.Context, m *Manifest, in *kept[T], c cid.Cid, decode func([]byte) (T, error)) (T, error) {
	if part, ok := in.get(c); ok {
		return part, nil
	}
	var none T
	b, err := m.get(ctx, c)
	if err != nil {
		return none, fmt.Errorf("load part %s of manifest %s: %w", c, m.self, err)
	}
	part, err := decode(b)
	if err != nil {
		return none, fmt.Errorf("load part %s of manifest %s: %w", c, m.self, err)
	}
	in.put(c, part)
	return part, nil
}

// page loads the page of an entry, whose totals it must have.
func (m *Manifest) page(ctx context.Context, e entry) (*page, error) {
	return load(ctx, m, &m.pages, e.link, func(b []byte) (*page, error) {
		groups, sum, err := decodePage(b, m.head.k, m.head.m)
		return &page{groups: groups}, sameTotals(sum, e.totals, err)
	})
}

// directory loads the entries below an entry of the given level.
func (m *Manifest) directory(ctx context.Context, e entry, level int) ([]entry, error) {
	return load(ctx, m, &m.dirs, e.link, func(b []byte) ([]entry, error) {
		entries, sum, err := decodeDirectory(b, level)
		return entries, sameTotals(sum, e.totals, err)
	})
}

func (m *Manifest) run(ctx context.Context, r runLink) ([]leafLink, error) {
	return load(ctx, m, &m.runs, r.link, func(b []byte) ([]leafLink, error) { return decodeRun(b, r.entries) })
}

func (m *Manifest) leaf(ctx context.Context, l leafLink) ([]indexEntry, error) {
	return load(ctx, m, &m.leafs, l.link, func(b []byte) ([]indexEntry, error) {
		return decodeLeaf(b, m.head.sum.pages)
	})
}

func sameTotals(got, want totals, err error) error {
	if err == nil && got != want {
		return fmt.Errorf("sums are not those of the link: %w", ErrMalformed)
	}
	return err
}

// page is a decoded page; the places of its blocks are sorted when they are first asked for.
type page struct {
	groups []Group
	sort   sync.Once
	places []place // by key; after sort
}

// place is where a block is in a page.
type place struct {
	key                  uint64
	group, stripe, shard int32
}

// find returns where a page has the block.
func (p *page) find(c cid.Cid) (Found, bool) {
	p.sort.Do(func() {
		for gi, g := range p.groups {
			for si, s := range g.Stripes {
				for di, d := range s.Data {
					p.places = append(p.places, place{indexKey(d.CID), int32(gi), int32(si), int32(di)})
				}
			}
		}
		slices.SortStableFunc(p.places, func(a, b place) int { return cmp.Compare(a.key, b.key) })
	})
	key := indexKey(c)
	i, _ := slices.BinarySearchFunc(p.places, key, func(a place, key uint64) int { return cmp.Compare(a.key, key) })
	for ; i < len(p.places) && p.places[i].key == key; i++ {
		at := p.places[i]
		g := p.groups[at.group]
		s := g.Stripes[at.stripe]
		if string(s.Data[at.shard].CID.Hash()) == string(c.Hash()) {
			return Found{Stripe: s, Shard: int(at.shard), Chunks: g.chunks(s)}, true
		}
	}
	return Found{}, false
}
