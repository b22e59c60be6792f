package node

import (
	"context"
	"errors"
	"fmt"
	"os"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/blockcache"
	"github.com/holdfastfs/holdfast/exchange"
	"github.com/holdfastfs/holdfast/fs"
	"github.com/holdfastfs/holdfast/fs/unixfs"
	"github.com/holdfastfs/holdfast/uploader/dag"
	"github.com/holdfastfs/holdfast/uploader/provider"
)

// Who stands where another room asks for somebody.
var (
	_ fs.Blocks         = (*blocksOf)(nil)
	_ unixfs.Blocks     = (*blocksOf)(nil)
	_ blockcache.Origin = origin{}
	_ exchange.Store    = (*served)(nil)
	_ dag.Sink          = (*sink)(nil)
	_ dag.Body          = (*body)(nil)
)

// The rooms' wants have the same fields; these are all the conversions there are.
func cacheWant(w unixfs.Want) blockcache.Want {
	return blockcache.Want{CID: w.CID, Dataset: w.Dataset, Place: blockcache.Place(w.Place)}
}

func exchangeWant(w blockcache.Want) exchange.Want {
	return exchange.Want{CID: w.CID, Dataset: w.Dataset, Place: exchange.Place(w.Place)}
}

// blocksOf is the cache as file systems see it.
type blocksOf struct {
	cache *blockcache.Cache
	store *blockcache.Store
}

func (b *blocksOf) Get(ctx context.Context, w unixfs.Want) (blocks.Block, error) {
	blk, err := b.cache.Get(ctx, cacheWant(w))
	if err != nil {
		return nil, fsError(ctx, w.CID, err)
	}
	return blk, nil
}

func (b *blocksOf) Local(ctx context.Context, w unixfs.Want) (blocks.Block, error) {
	blk, err := b.cache.Local(ctx, cacheWant(w))
	if errors.Is(err, blockcache.ErrNotFound) {
		return nil, fmt.Errorf("%w: %w", unixfs.ErrNotLocal, err)
	}
	if err != nil {
		return nil, fsError(ctx, w.CID, err)
	}
	return blk, nil
}

func (b *blocksOf) Prefetch(ctx context.Context, ws []unixfs.Want) {
	converted := make([]blockcache.Want, len(ws))
	for i, w := range ws {
		converted[i] = cacheWant(w)
	}
	b.cache.Prefetch(ctx, converted)
}

func (b *blocksOf) Body(file cid.Cid) (*os.File, bool) { return b.store.Body(file) }

// missingError is a block that did not come.
type missingError struct {
	cid cid.Cid
	err error
}

func (e *missingError) Error() string { return fmt.Sprintf("nobody gave block %s in time", e.cid) }

func (e *missingError) Unwrap() []error { return []error{fs.ErrUnavailable, e.err} }

// fsError says in the words of fs why a block did not come.
func fsError(ctx context.Context, c cid.Cid, err error) error {
	switch {
	case errors.Is(err, blockcache.ErrCorrupt):
		return fmt.Errorf("%w: %w", fs.ErrCorrupt, err)
	case errors.Is(err, exchange.ErrClosed), errors.Is(err, blockcache.ErrClosed):
		return fmt.Errorf("%w: %w", fs.ErrUnavailable, err)
	case errors.Is(err, exchange.ErrTimeout), errors.Is(err, blockcache.ErrNotFound), errors.Is(err, context.DeadlineExceeded),
		ctx.Err() == nil && errors.Is(err, context.Canceled): // the shared fetch was given up, not this reader
		return &missingError{cid: c, err: err}
	}
	return err
}

// origin is the exchange as the cache sees it.
type origin struct{ exchange *exchange.Exchange }

func (o origin) Fetch(ctx context.Context, w blockcache.Want) (blocks.Block, error) {
	return o.exchange.Fetch(ctx, exchangeWant(w))
}

// served is the store as the exchange sees it. It goes round the memory tier: what is served or downloaded in bulk
// would drive out what is read.
type served struct {
	store   *blockcache.Store
	chunks  func() *storage                   // where sealed chunks are kept for others; may be nil, or return nil
	arrived func(...cid.Cid)                  // told of what peers may wait for
	stored  func(context.Context, ...cid.Cid) // told of what may be announced
}

func (s *served) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	blk, err := s.store.Get(ctx, blockcache.Want{CID: c})
	if p := s.kept(err); p != nil {
		blk, err = p.Get(ctx, c)
	}
	return blk, exchangeError(err)
}

// kept returns the provider that may have what the store does not.
func (s *served) kept(err error) *storage {
	if s.chunks == nil || !errors.Is(err, blockcache.ErrNotFound) {
		return nil
	}
	return s.chunks()
}

func (s *served) SizeOf(ctx context.Context, c cid.Cid) (int, error) {
	size, err := s.store.SizeOf(ctx, c)
	if p := s.kept(err); p != nil {
		size, err = p.SizeOf(ctx, c)
	}
	return size, exchangeError(err)
}

func (s *served) Put(ctx context.Context, arrivals []exchange.Arrival) error {
	entries := make([]blockcache.Entry, len(arrivals))
	cids := make([]cid.Cid, len(arrivals))
	for i, a := range arrivals {
		entries[i] = blockcache.Entry{Block: a.Block, Place: blockcache.Place(a.Place)}
		cids[i] = a.Block.Cid()
	}
	if err := s.store.Put(ctx, entries); err != nil {
		return err
	}
	s.arrived(cids...)
	s.stored(ctx, cids...)
	return nil
}

func exchangeError(err error) error {
	if errors.Is(err, blockcache.ErrNotFound) || errors.Is(err, provider.ErrNotFound) {
		return fmt.Errorf("%w: %w", exchange.ErrNotFound, err)
	}
	return err
}

// links is unixfs.Links in the words of the exchange.
func links(w exchange.Want, b blocks.Block) ([]exchange.Want, error) {
	children, err := unixfs.Links(unixfs.Want{CID: w.CID, Dataset: w.Dataset, Place: unixfs.Place(w.Place)}, b)
	if err != nil {
		return nil, err
	}
	out := make([]exchange.Want, len(children))
	for i, c := range children {
		out[i] = exchange.Want{CID: c.CID, Dataset: c.Dataset, Place: exchange.Place(c.Place)}
	}
	return out, nil
}

// sink is the store as the importer sees it.
type sink struct {
	store   *blockcache.Store
	arrived func(...cid.Cid)
}

func (s *sink) Put(ctx context.Context, blks []blocks.Block) error {
	entries := make([]blockcache.Entry, len(blks))
	cids := make([]cid.Cid, len(blks))
	for i, b := range blks {
		entries[i], cids[i] = blockcache.Entry{Block: b}, b.Cid()
	}
	if err := s.store.Put(ctx, entries); err != nil {
		return err
	}
	s.arrived(cids...)
	return nil
}

func (s *sink) Body(ctx context.Context, fileBytes uint64) (dag.Body, error) {
	w, err := s.store.CreateBody(ctx, fileBytes)
	if err != nil {
		return nil, err
	}
	return &body{w}, nil
}

// body is a body's writer as the importer sees it.
type body struct{ *blockcache.BodyWriter }
