package dag

import (
	"context"

	"github.com/ipfs/go-cid"
)

// child is a node that is done, with what its parent states of it.
type child struct {
	cid      cid.Cid
	bytes    uint64 // of the file
	dagBytes uint64 // of blocks
}

// tree builds the balanced layout above leaves that come in order. It holds one unfinished node a level.
type tree struct {
	b      *Builder
	levels [][]child // levels[0] are leaves
}

// add takes the next leaf.
func (t *tree) add(ctx context.Context, leaf child) error { return t.addAt(ctx, 0, leaf) }

// addAt takes the next node of a level.
func (t *tree) addAt(ctx context.Context, level int, c child) error {
	for ; ; level++ {
		if level == len(t.levels) {
			t.levels = append(t.levels, make([]child, 0, 16))
		}
		if len(t.levels[level]) < t.b.cfg.width {
			t.levels[level] = append(t.levels[level], c)
			return nil
		}
		// Full, and more to come: the node is done, and c begins the next.
		node, err := t.fold(ctx, level, Meta{})
		if err != nil {
			return err
		}
		t.levels[level] = append(t.levels[level], c)
		c = node
	}
}

// fold makes a node of a level's children and empties the level.
func (t *tree) fold(ctx context.Context, level int, m Meta) (child, error) {
	blk, node := fileNode(t.levels[level], m)
	t.levels[level] = t.levels[level][:0]
	return node, t.b.putOne(ctx, blk)
}

// root ends the tree, which has at least one leaf. A single leaf is its own root unless wrap asks for a node above it.
func (t *tree) root(ctx context.Context, m Meta, wrap bool) (child, error) {
	for level := 0; level < len(t.levels)-1; level++ {
		node, err := t.fold(ctx, level, Meta{})
		if err != nil {
			return child{}, err
		}
		if err := t.addAt(ctx, level+1, node); err != nil {
			return child{}, err
		}
	}
	top := len(t.levels) - 1
	if top == 0 && len(t.levels[0]) == 1 && !wrap {
		return t.levels[0][0], nil
	}
	return t.fold(ctx, top, m)
}
