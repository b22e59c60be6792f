package recovery

import (
	"context"
	"errors"

	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/exchange"
)

// opened is a manifest that is open, or being opened by one of those who want it.
type opened struct {
	done     chan struct{} // closed when manifest or err is set
	manifest *erasure.Manifest
	err      error
	used     uint64
}

// open returns a manifest. Those used last stay open.
func (r *Recovery) open(ctx context.Context, c cid.Cid) (*erasure.Manifest, error) {
	for {
		r.mu.Lock()
		o := r.manifests[c]
		mine := o == nil
		if mine {
			r.makeRoomLocked()
			o = &opened{done: make(chan struct{})}
			r.manifests[c] = o
		}
		r.counts.uses++
		o.used = r.counts.uses
		r.mu.Unlock()
		if mine {
			o.manifest, o.err = erasure.OpenManifest(ctx, c, func(ctx context.Context, part cid.Cid) ([]byte, error) { return r.part(ctx, c, part) })
			if o.err != nil {
				r.mu.Lock()
				if r.manifests[c] == o {
					delete(r.manifests, c)
				}
				r.mu.Unlock()
			}
			close(o.done)
			return o.manifest, o.err
		}
		select {
		case <-o.done:
			if o.err == nil || ctx.Err() != nil {
				return o.manifest, o.err
			}
			if !errors.Is(o.err, context.Canceled) && !errors.Is(o.err, context.DeadlineExceeded) {
				return nil, o.err
			}
			// who opened it gave up, which is not for us to do
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// makeRoomLocked forgets the manifest that was not used for longest when there are too many.
func (r *Recovery) makeRoomLocked() {
	for len(r.manifests) >= r.cfg.Open {
		var oldest cid.Cid
		least := ^uint64(0)
		for c, o := range r.manifests {
			if o.used < least {
				oldest, least = c, o.used
			}
		}
		delete(r.manifests, oldest)
	}
}

// part reads a block of a manifest, from the local store or from peers.
func (r *Recovery) part(ctx context.Context, manifest, c cid.Cid) ([]byte, error) {
	b, err := r.cfg.Store.Get(ctx, c)
	if errors.Is(err, exchange.ErrNotFound) {
		b, err = r.cfg.Engine.FetchPlain(ctx, exchange.Want{CID: c, Dataset: manifest}, nil)
	}
	if err != nil {
		return nil, err
	}
	return b.RawData(), nil
}
