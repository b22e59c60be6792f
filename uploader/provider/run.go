package provider

import (
	"context"
	"errors"
	"time"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sync/errgroup"

	"github.com/holdfastfs/holdfast/uploader/provider/pb"
)

// Times between looks at what is due, and pauses between copies that are hashed in the background.
const (
	tendEvery   = 5 * time.Second
	sweepEvery  = time.Hour
	rehashPause = 100 * time.Millisecond
	retryDue    = time.Minute
)

// Run ends links that lapsed, expired or were not paid, announces chunks, and hashes files again after
// a stop that was not clean. It returns when ctx has ended and nothing of it runs any more.
func (p *Provider) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.tendLoop(ctx) })
	g.Go(func() error { return p.announceLoop(ctx) })
	g.Go(func() error { return p.rehashAll(ctx, rehashPause) })
	return g.Wait()
}

// pause waits and says whether to go on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (p *Provider) tendLoop(ctx context.Context) error {
	var swept time.Time
	for {
		if err := p.tend(ctx); err != nil && !finished(ctx, err) && !errors.Is(err, ErrClosed) {
			p.log.Warn("end links that are due", keyError, err)
		}
		if now := time.Now(); now.Sub(swept) >= sweepEvery {
			swept = now
			if err := p.sweepWriters(); err != nil {
				p.log.Warn("forget writers", keyError, err)
			}
		}
		if !pause(ctx, tendEvery) {
			return nil
		}
	}
}

// rehashAll hashes every copy that was not since the last unclean stop, with a pause after each.
func (p *Provider) rehashAll(ctx context.Context, rest time.Duration) error {
	var after copyID
	for {
		id, found, err := p.nextUnverified(after)
		if err != nil {
			p.log.Warn("look for chunks to verify", keyError, err)
		}
		if err != nil || !found {
			return nil
		}
		after = id
		if err := p.rehashCopy(id); err != nil && !isUnknown(err) {
			if errors.Is(err, ErrClosed) {
				return nil
			}
			p.log.Warn("verify chunk after an unclean stop", keyChunk, id.name(), keyError, err)
		}
		if !pause(ctx, rest) {
			return nil
		}
	}
}

func (p *Provider) rehashCopy(id copyID) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.exit()
	h, err := p.use(id)
	if err != nil {
		return err
	}
	defer p.leave(h)
	if h.rec == nil || h.rec.Deleting {
		return nil
	}
	return p.trust(h)
}

// nextUnverified returns the first copy after another that is to be hashed.
func (p *Provider) nextUnverified(after copyID) (id copyID, found bool, err error) {
	if err := p.enter(); err != nil {
		return id, false, nil
	}
	defer p.exit()
	err = p.cfg.DB.View(func(txn *badger.Txn) error {
		opts := badger.DefaultIteratorOptions
		opts.Prefix = p.key(tagCopy)
		it := txn.NewIterator(opts)
		defer it.Close()
		for it.Seek(p.copyKey(after)); it.Valid(); it.Next() {
			at := copyID(it.Item().Key()[len(opts.Prefix):])
			if at == after {
				continue
			}
			var rec pb.Copy
			if err := decode(it.Item(), &rec); err != nil {
				return err
			}
			if rec.Epoch != p.epoch && !rec.Damaged && !rec.Deleting {
				id, found = at, true
				return nil
			}
		}
		return nil
	})
	return id, found, err
}
