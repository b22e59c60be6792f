package uploader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/holdfastfs/holdfast/erasure"
)

const (
	// rebuildAfter is how long a shard may take before it is rebuilt as well. The next ones of a chunk of which
	// one was lost are rebuilt at once.
	rebuildAfter = 2 * time.Second
	// siblingAfter is how long the shards of a stripe may take before one more of them is asked for.
	siblingAfter = time.Second
	// readAtOnce is how many bytes of shards are read in parallel, at least one shard and at most maxReads.
	readAtOnce = 4 << 20
	maxReads   = 16
	// rebuildBytes is how much the stripes may have that are rebuilt at once, of all chunks. A larger one is alone.
	rebuildBytes = 64 << 20
)

var errNoStripe = errors.New("it is in no stripe with parity")

// code says how the columns of a group make stripes.
type code struct {
	Data    int    // blocks of a full stripe; 0: nobody knows
	Stripes []byte // blocks of each stripe; nil: all have as many as there are columns of data
}

// codeOf checks what a group says of its stripes against the numbers of its columns' shards.
func codeOf(g Group, shards []int) (c code, err error) {
	data := len(g.Columns) - g.Parity
	if g.Parity == 0 || data == 0 {
		return c, nil
	}
	if c.Data = g.Data; c.Data == 0 {
		c.Data = data
	}
	short := false
	for _, n := range g.Stripes {
		if n < 1 || n > data {
			return code{}, fmt.Errorf("stripe of %d blocks in %d columns: %w", n, data, ErrInvalid)
		}
		c.Stripes = append(c.Stripes, byte(n))
		short = short || n < data
	}
	if !short {
		c.Stripes = nil
	}
	fits := c.Data >= data && erasure.CheckCode(c.Data, g.Parity) == nil
	for j, n := range shards {
		rows := shards[len(shards)-1] // of parity, which every stripe has
		if c.Stripes != nil {
			rows = 0
			for _, blocks := range c.Stripes {
				if j >= data || int(blocks) > j {
					rows++
				}
			}
		}
		fits = fits && n == rows
	}
	switch {
	case fits:
		return c, nil
	case len(g.Stripes) == 0 && g.Data == 0: // it is kept all the same, and can't be rebuilt from
		return code{}, nil
	}
	return code{}, fmt.Errorf("columns are not those of %d stripes by the code (%d,%d): %w", len(g.Stripes), c.Data, g.Parity, ErrInvalid)
}

// blocks returns how many blocks stripe i has.
func (g *groupRecord) blocks(i int) int {
	if g.Code.Stripes == nil {
		return len(g.Chunks) - g.Parity
	}
	return int(g.Code.Stripes[i])
}

// stripe returns which stripe shard i of column j is in.
func (g *groupRecord) stripe(j, i int) int {
	if g.Code.Stripes == nil || j >= len(g.Chunks)-g.Parity {
		return i
	}
	for at, n := range g.Code.Stripes {
		if int(n) > j {
			if i--; i < 0 {
				return at
			}
		}
	}
	return len(g.Code.Stripes)
}

// row returns the number that a stripe's shard has in data column j.
func (g *groupRecord) row(stripe, j int) (i int) {
	if g.Code.Stripes == nil {
		return stripe
	}
	for _, n := range g.Code.Stripes[:stripe] {
		if int(n) > j {
			i++
		}
	}
	return i
}

// rebuilder reads one chunk's shards, and makes those anew that nobody gives.
type rebuilder struct {
	chunks Chunks
	shards func(chunk cid.Cid) (erasure.Chunk, error)
	groups []groupRecord
	memory *semaphore.Weighted // of all rebuilders
	lost   atomic.Bool         // some shard was rebuilt: others will have to be

	mu      sync.Mutex // guards columns
	columns map[cid.Cid]erasure.Chunk
}

// column lists a chunk's shards.
func (r *rebuilder) column(chunk cid.Cid) (erasure.Chunk, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.columns[chunk]; ok {
		return c, nil
	}
	c, err := r.shards(chunk)
	if err != nil {
		return nil, err
	}
	if r.columns == nil {
		r.columns = make(map[cid.Cid]erasure.Chunk)
	}
	r.columns[chunk] = c
	return c, nil
}

// read fills b with the bytes of a chunk.
func (r *rebuilder) read(ctx context.Context, chunk cid.Cid, shards erasure.Chunk, b []byte) error {
	most := 1
	for _, s := range shards {
		most = max(most, s.Bytes)
	}
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(max(1, min(maxReads, readAtOnce/most)))
	at := 0
	for i, s := range shards {
		if at+s.Bytes > len(b) {
			return fmt.Errorf("chunk %s is longer than %d bytes", chunk, len(b))
		}
		to := b[at : at+s.Bytes]
		at += s.Bytes
		work.Go(func() error {
			part, err := r.shard(ctx, chunk, i, s)
			copy(to, part)
			return err
		})
	}
	return work.Wait()
}

// shard returns one shard: whichever comes first, the shard itself or what its stripe gives.
func (r *rebuilder) shard(ctx context.Context, chunk cid.Cid, i int, s erasure.Shard) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		b   []byte
		err error
	}
	whole, rebuilt := make(chan result, 1), make(chan result, 1)
	go func() {
		b, err := r.plain(ctx, s)
		whole <- result{b, err}
	}()
	patience := rebuildAfter
	if r.lost.Load() {
		patience = 0
	}
	alarm := time.NewTimer(patience)
	defer alarm.Stop()
	var failed error
	running, began := 1, false
	defer func() { // nobody is left behind
		cancel()
		for ; running > 0; running-- {
			select {
			case <-whole:
			case <-rebuilt:
			}
		}
	}()
	begin := func() {
		began = true
		running++
		go func() {
			b, err := r.rebuild(ctx, chunk, i, s)
			rebuilt <- result{b, err}
		}()
	}
	for running > 0 {
		select {
		case got := <-whole:
			if running--; got.err == nil {
				return got.b, nil
			}
			if failed = got.err; !began {
				begin()
			}
		case got := <-rebuilt:
			if running--; got.err == nil {
				r.lost.Store(true)
				return got.b, nil
			}
			if failed == nil || !errors.Is(got.err, errNoStripe) {
				failed = got.err
			}
		case <-alarm.C:
			if !began {
				begin()
			}
		}
	}
	return nil, failed
}

// plain reads a shard and checks it, if nobody has.
func (r *rebuilder) plain(ctx context.Context, s erasure.Shard) ([]byte, error) {
	b, checked, err := r.chunks.ReadShard(ctx, s.CID)
	if err != nil {
		return nil, fmt.Errorf("read shard %s: %w", s.CID, err)
	}
	if checked && len(b) == s.Bytes {
		return b, nil
	}
	return b, check(s, b)
}

// rebuild makes shard i of a chunk out of others of its stripe.
func (r *rebuilder) rebuild(ctx context.Context, chunk cid.Cid, i int, s erasure.Shard) ([]byte, error) {
	failed := fmt.Errorf("rebuild shard %s: %w", s.CID, errNoStripe)
	for g := range r.groups {
		g := &r.groups[g]
		j := slices.Index(g.Chunks, chunk)
		if j < 0 || g.Code.Data == 0 {
			continue
		}
		b, err := r.rebuildIn(ctx, g, j, i)
		if err == nil {
			err = check(s, b)
		}
		if err == nil {
			return b, nil
		}
		failed = fmt.Errorf("rebuild shard %s: %w", s.CID, err)
	}
	return nil, failed
}

// rebuildIn makes shard i of column j of a group.
func (r *rebuilder) rebuildIn(ctx context.Context, g *groupRecord, j, i int) ([]byte, error) {
	stripe := g.stripe(j, i)
	members, err := r.members(g, stripe)
	if err != nil {
		return nil, err
	}
	blocks, data := len(members)-g.Parity, len(g.Chunks)-g.Parity
	lost := j
	if j >= data {
		lost = blocks + j - data
	}
	codec, err := erasure.New(g.Code.Data, g.Parity)
	if err != nil {
		return nil, err
	}
	bytes := min(rebuildBytes, int64(len(members))*int64(members[blocks].Bytes))
	if err := r.memory.Acquire(ctx, bytes); err != nil {
		return nil, err
	}
	defer r.memory.Release(bytes)
	have, err := r.gather(ctx, members, lost, blocks)
	if err != nil {
		return nil, err
	}
	lengths, want := make([]int, len(members)), make([]bool, len(members))
	for m, s := range members {
		lengths[m] = s.Bytes
	}
	want[lost] = true
	if err := codec.Reconstruct(have, lengths, want); err != nil {
		return nil, err
	}
	return have[lost], nil
}

// members lists a stripe's shards: its blocks, then its parity.
func (r *rebuilder) members(g *groupRecord, stripe int) (all []erasure.Shard, err error) {
	data := len(g.Chunks) - g.Parity
	for j, chunk := range g.Chunks {
		row := stripe
		if j < data {
			if j >= g.blocks(stripe) {
				continue
			}
			row = g.row(stripe, j)
		}
		shards, err := r.column(chunk)
		if err != nil {
			return nil, err
		}
		if row >= len(shards) {
			return nil, fmt.Errorf("column %d has no shard %d: %w", j, row, errNoStripe)
		}
		all = append(all, shards[row])
	}
	return all, nil
}

// gather reads as many shards of a stripe as it has blocks, all but the lost one: further ones where some fail or
// are slow.
func (r *rebuilder) gather(ctx context.Context, members []erasure.Shard, lost, need int) ([][]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		at  int
		b   []byte
		err error
	}
	got := make(chan result, len(members))
	have := make([][]byte, len(members))
	next, running := 0, 0
	defer func() {
		cancel()
		for ; running > 0; running-- {
			<-got
		}
	}()
	more := func() {
		if next == lost {
			next++
		}
		if next >= len(members) {
			return
		}
		at := next
		next++
		running++
		go func() {
			b, err := r.plain(ctx, members[at])
			got <- result{at, b, err}
		}()
	}
	for range need {
		more()
	}
	pause := time.NewTicker(siblingAfter)
	defer pause.Stop()
	failed := erasure.ErrTooFew
	for running > 0 {
		select {
		case one := <-got:
			running--
			if one.err != nil {
				failed = one.err
				more()
				continue
			}
			if have[one.at] = one.b; need == 1 {
				return have, nil
			}
			need--
		case <-pause.C:
			more()
		}
	}
	return nil, fmt.Errorf("%d more shards are needed: %w", need, failed)
}
