package erasure

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
)

// Found is the stripe of a block. It is shared and must not be changed.
type Found struct {
	Stripe Stripe
	Shard  int       // the block's number among Stripe.Data
	Chunks []cid.Cid // the chunk of each shard, in the order of [Stripe.Shards]
}

// Find returns the stripe of a block of the dataset, also if the manifest names the same bytes by
// another CID (of another version or codec, but the same hash). It reads a few blocks: for each two
// million blocks of the dataset two of the index, then a page. Blocks near the last one found are mostly
// in a page that is kept. It fails with ErrNotFound; or with ErrMalformed or get's error, if a part could not be read that
// might have told.
func (m *Manifest) Find(ctx context.Context, c cid.Cid) (Found, error) {
	if !c.Defined() || !isBlock(c) {
		return Found{}, fmt.Errorf("find %s: %w", c, ErrNotFound)
	}
	for _, p := range m.pages.all() {
		if f, ok := p.find(c); ok {
			return f, nil
		}
	}
	f, err := m.search(ctx, c)
	if err != nil {
		return Found{}, fmt.Errorf("find %s: %w", c, err)
	}
	return f, nil
}

// search asks the index, or all pages where there is none. A part that cannot be read is passed over, as
// another may tell; if none does, it is the reason.
func (m *Manifest) search(ctx context.Context, c cid.Cid) (Found, error) {
	reason := ErrNotFound
	note := func(err error) {
		if errors.Is(reason, ErrNotFound) {
			reason = err
		}
	}
	try := func(number int64) (Found, bool) {
		p, err := m.pageNumber(ctx, number)
		if err != nil {
			note(err)
			return Found{}, false
		}
		return p.find(c)
	}
	if len(m.head.index) == 0 {
		for number := range m.head.sum.pages {
			if f, ok := try(number); ok {
				return f, nil
			}
		}
		return Found{}, reason
	}
	tries := maxAlike
	for _, r := range m.head.index {
		if ctx.Err() != nil {
			return Found{}, context.Cause(ctx)
		}
		pages, err := m.candidates(ctx, r, indexKey(c))
		if err != nil {
			note(err)
		}
		for _, number := range pages[:min(len(pages), tries)] {
			tries--
			if f, ok := try(number); ok {
				return f, nil
			}
		}
	}
	return Found{}, reason
}

// candidates returns the pages that a run of the index gives for a key, mostly none or one.
func (m *Manifest) candidates(ctx context.Context, r runLink, key uint64) ([]int64, error) {
	leaves, err := m.run(ctx, r)
	if err != nil {
		return nil, err
	}
	var pages []int64
	for _, l := range leavesFor(leaves, key) {
		entries, e := m.leaf(ctx, l)
		if e != nil {
			err = e
			continue
		}
		pages = append(pages, pagesFor(entries, key)...)
	}
	return pages, err
}

// pageNumber loads a page by its number.
func (m *Manifest) pageNumber(ctx context.Context, number int64) (*page, error) {
	entries := m.head.pages
	for level := m.head.level; ; level-- {
		i := 0
		for i < len(entries)-1 && number >= entries[i].pages {
			number -= entries[i].pages
			i++
		}
		if level == 0 {
			return m.page(ctx, entries[i])
		}
		var err error
		if entries, err = m.directory(ctx, entries[i], level); err != nil {
			return nil, err
		}
	}
}
