package erasure

import (
	"context"
	"fmt"
	"iter"

	"github.com/ipfs/go-cid"
)

// Getter returns the bytes of a block, which must hash to the CID. It is called from whoever reads the
// manifest, maybe from many goroutines, and the bytes are not kept or changed.
type Getter func(ctx context.Context, c cid.Cid) ([]byte, error)

// Manifest reads a manifest: pages as they are needed, of which a few are kept. It may be used from many
// goroutines. What it says is a claim of whoever wrote it, consistent in itself and within all limits.
type Manifest struct {
	head  *header
	self  cid.Cid
	get   Getter
	pages kept[*page]
	dirs  kept[[]entry]
	runs  kept[[]leafLink]
	leafs kept[[]indexEntry]
}

// What a Manifest keeps decoded, at most: in all below 40 MiB, mostly far below, as pages have 256 KiB.
const (
	keptPages  = 8
	keptDirs   = 8
	keptRuns   = 16
	keptLeaves = 16
)

// OpenManifest loads the manifest c. Ctx is for this call only. It fails with ErrMalformed if the block
// is no manifest, or with get's error.
func OpenManifest(ctx context.Context, c cid.Cid, get Getter) (*Manifest, error) {
	if !isPart(c) {
		return nil, fmt.Errorf("open manifest %s: not dag-cbor by sha2-256: %w", c, ErrMalformed)
	}
	b, err := get(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open manifest %s: %w", c, err)
	}
	head, err := decodeHeader(b)
	if err != nil {
		return nil, fmt.Errorf("open manifest %s: %w", c, err)
	}
	return &Manifest{
		head: head, self: c, get: get,
		pages: kept[*page]{most: keptPages}, dirs: kept[[]entry]{most: keptDirs},
		runs: kept[[]leafLink]{most: keptRuns}, leafs: kept[[]indexEntry]{most: keptLeaves},
	}, nil
}

// CID returns the manifest's own CID.
func (m *Manifest) CID() cid.Cid { return m.self }

// Root returns the root of the dataset.
func (m *Manifest) Root() cid.Cid { return m.head.root }

// Code returns k and m.
func (m *Manifest) Code() (k, parity int) { return m.head.k, m.head.m }

// Bytes returns the bytes of all blocks of the dataset, parity not counted.
func (m *Manifest) Bytes() int64 { return m.head.sum.bytes }

// Blocks returns how many blocks are protected.
func (m *Manifest) Blocks() int64 { return m.head.sum.blocks }

// CountStripes returns how many stripes there are.
func (m *Manifest) CountStripes() int64 { return m.head.sum.stripes }

// Groups yields all groups in order. It ends after the first error, which is ErrMalformed, get's or ctx's.
// A small manifest can claim that there are very many; who does not trust it compares [Manifest.Blocks].
func (m *Manifest) Groups(ctx context.Context) iter.Seq2[Group, error] {
	return func(yield func(Group, error) bool) {
		err := m.walk(ctx, m.head.level, m.head.pages, func(e entry, level int) (bool, error) {
			if level > 0 {
				return true, nil
			}
			p, err := m.page(ctx, e)
			if err != nil {
				return false, err
			}
			for _, g := range p.groups {
				if !yield(g, nil) {
					return false, nil
				}
			}
			return true, nil
		})
		if err != nil {
			yield(Group{}, err)
		}
	}
}

// Stripes yields all stripes in order. It ends after the first error, which is ErrMalformed or get's.
func (m *Manifest) Stripes(ctx context.Context) iter.Seq2[Stripe, error] {
	return func(yield func(Stripe, error) bool) {
		for g, err := range m.Groups(ctx) {
			if err != nil {
				yield(Stripe{}, err)
				return
			}
			for _, s := range g.Stripes {
				if !yield(s, nil) {
					return
				}
			}
		}
	}
}

// Parts yields the CIDs of all blocks that the manifest is made of, itself first; the descriptors of
// chunks are not among them. It reads no pages, only what is above them.
func (m *Manifest) Parts(ctx context.Context) iter.Seq2[cid.Cid, error] {
	return func(yield func(cid.Cid, error) bool) {
		if !yield(m.self, nil) {
			return
		}
		more := true
		err := m.walk(ctx, m.head.level, m.head.pages, func(e entry, _ int) (bool, error) {
			more = yield(e.link, nil)
			return more, nil
		})
		for i := 0; more && err == nil && i < len(m.head.index); i++ {
			var leaves []leafLink
			if leaves, err = m.run(ctx, m.head.index[i]); err != nil {
				break
			}
			more = yield(m.head.index[i].link, nil)
			for j := 0; more && j < len(leaves); j++ {
				more = yield(leaves[j].link, nil)
			}
		}
		if more && err != nil {
			yield(cid.Undef, err)
		}
	}
}

// visitor is called with an entry and its level and says whether to go on.
type visitor func(e entry, level int) (more bool, err error)

// walk visits the tree of pages from left to right, directories before what is below them, until visit
// says false or fails.
func (m *Manifest) walk(ctx context.Context, level int, entries []entry, visit visitor) error {
	_, err := m.walkOn(ctx, level, entries, visit)
	return err
}

func (m *Manifest) walkOn(ctx context.Context, level int, entries []entry, visit visitor) (bool, error) {
	for _, e := range entries {
		// A few directories that link to each other many times make a tree of any size.
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if more, err := visit(e, level); err != nil || !more {
			return false, err
		}
		if level == 0 {
			continue
		}
		below, err := m.directory(ctx, e, level)
		if err != nil {
			return false, err
		}
		if more, err := m.walkOn(ctx, level-1, below, visit); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}
