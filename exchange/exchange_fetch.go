package exchange

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// Fetch returns a block that peers have. Callers that want the same block share one fetch. The block
// is verified and was given to the store; one that the store refused is returned all the same. Fetch
// does not look into the store first. It waits until somebody delivers or ctx ends; after a deadline
// the error wraps [ErrTimeout]. It fails soon, with an error that wraps [ErrTooDear] or [ErrBudget], when
// everybody who has the block wants more for it than may be paid.
func (e *Exchange) Fetch(ctx context.Context, w Want) (blocks.Block, error) {
	return e.fetch(ctx, wantEvent{want: w, rescue: true}, nil)
}

// fetch has a want fulfilled as event says.
func (e *Exchange) fetch(ctx context.Context, event wantEvent, missing func()) (blocks.Block, error) {
	w := event.want
	if b, err := answerLocally(w.CID); b != nil || err != nil {
		return b, err
	}
	type result struct {
		block blocks.Block
		err   error
	}
	got := make(chan result, 1)
	id := e.newIntent()
	event.intent = id
	err := e.request(ctx, event, caller{deliver: func(b blocks.Block, err error) { got <- result{b, err} }, missing: missing})
	if err != nil {
		return nil, fetchError(w.CID, err)
	}
	select {
	case r := <-got:
		if r.err == errDeadline {
			<-ctx.Done() // it is the deadline of ctx, which knows its cause
			r.err = context.Cause(ctx)
		}
		if r.block == nil {
			return nil, fetchError(w.CID, r.err)
		}
		return r.block, nil
	case <-ctx.Done():
		e.forget(id)
		return nil, fetchError(w.CID, context.Cause(ctx))
	case <-e.done:
		return nil, fetchError(w.CID, ErrClosed)
	}
}

func (e *Exchange) newIntent() intentID { return intentID(e.intents.Add(1)) }

// request hands a want to the loop. The caller's deliver is called at most once, must not block, and may still be
// called while the request is being forgotten.
func (e *Exchange) request(ctx context.Context, event wantEvent, c caller) error {
	event.rescue = event.rescue && e.cfg.Rescue != nil
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case e.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-e.done:
		return ErrClosed
	}
	deadline, _ := ctx.Deadline()
	select {
	case e.requests <- request{event, deadline, c}:
		return nil
	case <-ctx.Done():
		<-e.slots
		return context.Cause(ctx)
	case <-e.done:
		<-e.slots
		return ErrClosed
	}
}

// forget takes a request back.
func (e *Exchange) forget(id intentID) {
	select {
	case e.requests <- forgetEvent{id}:
	case <-e.done:
	}
}

// fetchError says what failed, and in one word of ours when time ran out.
func fetchError(c cid.Cid, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("fetch block %s: %w: %w", c, ErrTimeout, err)
	}
	return fmt.Errorf("fetch block %s: %w", c, err)
}

// answerLocally makes the blocks that need no network: identity CIDs carry theirs, and the empty
// block is known. Both results are nil for any other CID.
func answerLocally(c cid.Cid) (blocks.Block, error) {
	if !c.Defined() {
		return nil, fmt.Errorf("fetch block: %w: undefined CID", ErrInvalid)
	}
	prefix := c.Prefix()
	if prefix.MhType == multihash.IDENTITY {
		digest, err := multihash.Decode(c.Hash())
		if err != nil {
			return nil, fetchError(c, fmt.Errorf("%w: %w", ErrInvalid, err))
		}
		return blocks.NewBlockWithCid(digest.Digest, c)
	}
	if !hashAllowed(prefix.MhType, prefix.MhLength) {
		// Asked for all the same, peers that have it would be shut out for giving it.
		return nil, fetchError(c, fmt.Errorf("%w: hash %#x of %d bytes proves nothing", ErrInvalid, prefix.MhType, prefix.MhLength))
	}
	if prefix.MhType == multihash.SHA2_256 && prefix.MhLength == sha256Bytes && !isEmptySHA256(c) {
		return nil, nil
	}
	empty, err := prefix.Sum(nil)
	if err != nil {
		return nil, fetchError(c, fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	if empty.Equals(c) {
		return blocks.NewBlockWithCid([]byte{}, c)
	}
	return nil, nil
}

// emptySHA256 is the usual multihash of no bytes.
var emptySHA256 = func() string {
	sum := sha256.Sum256(nil)
	return string(append([]byte{multihash.SHA2_256, sha256Bytes}, sum[:]...))
}()

// isEmptySHA256 says whether a CID is that of the empty block, without hashing anew for each one.
func isEmptySHA256(c cid.Cid) bool { return strings.HasSuffix(c.KeyString(), emptySHA256) }
