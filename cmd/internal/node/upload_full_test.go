package node

import (
	"context"
	"errors"
	"fmt"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/blockcache"
	"github.com/holdfastfs/holdfast/uploader/dag"
	"github.com/holdfastfs/holdfast/uploader/dataset"
)

// failingStore fails at everything.
type failingStore struct{ err error }

func (s failingStore) Put(context.Context, dataset.Mark, []blocks.Block) error { return s.err }

func (s failingStore) Body(context.Context, dataset.Mark, dataset.FileID, uint64) (dag.Body, error) {
	return failingBody{s}, nil
}

func (s failingStore) Get(context.Context, cid.Cid) ([]byte, error)        { return nil, s.err }
func (s failingStore) Keep(context.Context, dataset.Mark, []cid.Cid) error { return s.err }
func (s failingStore) Release(context.Context, dataset.Mark) error         { return s.err }
func (s failingStore) Commit(context.Context, cid.Cid) error               { return s.err }
func (s failingStore) Abort()                                              {}

// failingBody is a body of it.
type failingBody struct{ failingStore }

func (b failingBody) Put(context.Context, uint64, []blocks.Block) error { return b.err }

func TestDatasetKnowsThatTheStoreIsFull(t *testing.T) {
	ctx := context.Background()
	other := errors.New("other")
	for _, err := range []error{fmt.Errorf("no room: %w", blockcache.ErrFull), other} {
		s := fullStore{failingStore{err}}
		_, getErr := s.Get(ctx, cid.Undef)
		b, bodyErr := s.Body(ctx, "", dataset.FileID{}, 0)
		if bodyErr != nil {
			t.Fatal(bodyErr)
		}
		for what, got := range map[string]error{
			"put": s.Put(ctx, "", nil), "keep": s.Keep(ctx, "", nil), "get": getErr,
			"put into a body": b.Put(ctx, 0, nil), "commit": b.Commit(ctx, cid.Undef),
		} {
			if !errors.Is(got, err) || errors.Is(got, dataset.ErrFull) != errors.Is(err, blockcache.ErrFull) {
				t.Errorf("%s: %v became %v", what, err, got)
			}
		}
	}
	if err := asFull(nil); err != nil {
		t.Errorf("nothing became %v", err)
	}
}
