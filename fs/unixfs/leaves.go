package unixfs

import (
	"context"
	"errors"
	"fmt"
)

// maxLeaves bounds what one call of Leaves returns.
const maxLeaves = 4096

// Leaf is a block that holds bytes of a file.
type Leaf struct {
	Want   Want
	Offset uint64 // where its bytes begin in the file
	Bytes  uint64 // how many of the file's bytes lie in it or, if Inner, below it
	Inner  bool   // an inner node that is not here: its leaves are listed when it is
}

// Leaves lists, in order, the blocks that cover the bytes [off, off+n): for readahead. It returns at most 4,096; whoever
// wants more goes on behind the last. Inner nodes are fetched, siblings in parallel, or with localOnly taken where they
// are here and listed as they are where not. A dag-pb block that may be a leaf is listed without being looked at.
func (f *File) Leaves(ctx context.Context, off, n uint64, localOnly bool) ([]Leaf, error) {
	if off >= f.size || n == 0 {
		return nil, nil
	}
	var out []Leaf
	w := f.walk(off, off+min(n, f.size-off))
	for len(out) < maxLeaves && ctx.Err() == nil {
		batch, err := w.take(min(f.r.parallel, maxLeaves-len(out)))
		if err == nil && len(batch) > 0 {
			err = f.classify(ctx, batch, localOnly)
		}
		if err != nil {
			return nil, fmt.Errorf("list blocks of %s at %d: %w", f.root.CID, off, err)
		}
		if len(batch) == 0 {
			break
		}
		if out, err = w.emit(ctx, out, batch); err != nil {
			return nil, fmt.Errorf("list blocks of %s at %d: %w", f.root.CID, off, err)
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return out, nil
}

// mayBeLeaf reports whether a span's block could be a leaf that nobody has looked at.
func (s *span) mayBeLeaf() bool { return s.raw || !s.inner && s.end-s.off <= maxNodeBytes }

// classify loads those of batch that must be inner nodes. Afterwards inner is set on those that are decoded now, and
// lost on those that are not here.
func (f *File) classify(ctx context.Context, batch []span, localOnly bool) error {
	fetch := f.r.get
	if localOnly {
		fetch = f.r.local
	}
	return inParallel(ctx, len(batch), func(ctx context.Context, i int) error {
		s := &batch[i]
		if s.data != nil || s.mayBeLeaf() {
			return nil
		}
		s.inner = false
		n, err := f.r.load(ctx, s.want, fetch)
		if localOnly && errors.Is(err, ErrNotLocal) {
			s.lost = true
			return nil
		}
		if err == nil {
			err = checkSize(n, s.end-s.off)
		}
		s.inner = err == nil && len(n.links) > 0
		return err
	})
}

// emit appends the leaves before the first inner node of batch and pushes the rest back.
func (w *walk) emit(ctx context.Context, out []Leaf, batch []span) ([]Leaf, error) {
	for i, s := range batch {
		if s.inner {
			rest := batch[i+1:]
			for j := range rest {
				rest[j].lost = false
			}
			w.push(rest)
			return out, w.reenter(ctx, batch[i:i+1])
		}
		if s.data == nil {
			out = append(out, Leaf{Want: s.want, Offset: s.off, Bytes: s.end - s.off, Inner: s.lost})
		}
	}
	return out, nil
}
