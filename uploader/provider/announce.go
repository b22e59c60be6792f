package provider

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"
)

// announceLoop announces chunks as they become due.
func (p *Provider) announceLoop(ctx context.Context) error {
	if p.cfg.Announcer == nil {
		return nil
	}
	for {
		n, err := p.announceDue(ctx)
		if err != nil && !finished(ctx, err) && !errors.Is(err, ErrClosed) {
			p.log.Warn("announce chunks", keyError, err)
		}
		if n == announceBatch && ctx.Err() == nil {
			continue
		}
		if !pause(ctx, time.Second) {
			return nil
		}
	}
}

const (
	announceBatch   = 64
	announceAtOnce  = 4
	announceTimeout = time.Minute
)

// announceDue announces some of the chunks that are due and returns how many there were. The announcer
// may call the provider.
func (p *Provider) announceDue(ctx context.Context) (int, error) {
	chunks, err := p.dueChunks(p.now().Unix())
	if err != nil {
		return 0, err
	}
	var g errgroup.Group
	g.SetLimit(announceAtOnce)
	for _, c := range chunks {
		g.Go(func() error { return p.announce(ctx, c) })
	}
	return len(chunks), g.Wait()
}

func (p *Provider) dueChunks(now int64) (chunks []cid.Cid, err error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.exit()
	err = p.cfg.DB.View(func(txn *badger.Txn) error {
		return each(txn, p.key(tagAnnounce), false, func(_ *badger.Item, rest []byte) (bool, error) {
			if len(rest) < 10 || int64(binary.BigEndian.Uint64(rest)) > now {
				return false, nil
			}
			c, err := cid.Cast(rest[9:])
			chunks = append(chunks, c)
			return len(chunks) < announceBatch, err
		})
	})
	return chunks, err
}

// announce tells of a chunk that is still here, and plans the next time.
func (p *Provider) announce(ctx context.Context, chunk cid.Cid) error {
	has, err := p.holds(chunk)
	if err != nil {
		return err
	}
	var next int64
	if has {
		next = p.tell(ctx, chunk).Unix()
	}
	if err := p.enter(); err != nil {
		return err
	}
	defer p.exit()
	return p.commit(func(txn *badger.Txn) error {
		if !p.holdsIn(txn, chunk) {
			return p.announceAt(txn, chunk, -1)
		}
		return p.announceAt(txn, chunk, next) // at once where it came back just now
	})
}

// tell calls the announcer and returns when to do so again. It holds no lock meanwhile.
func (p *Provider) tell(ctx context.Context, chunk cid.Cid) time.Time {
	ctx, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	if err := p.cfg.Announcer.Announce(ctx, chunk); err != nil {
		p.log.Debug("announce chunk", keyCID, chunk, keyError, err)
		return p.now().Add(retryDue)
	}
	p.counts.announced.Add(1)
	return p.now().Add(p.cfg.AnnounceEvery)
}

// holds says whether any copy of a chunk is here.
func (p *Provider) holds(chunk cid.Cid) (has bool, err error) {
	if err := p.enter(); err != nil {
		return false, err
	}
	defer p.exit()
	err = p.cfg.DB.View(func(txn *badger.Txn) error {
		has = p.holdsIn(txn, chunk)
		return nil
	})
	return has, err
}

func (p *Provider) holdsIn(txn *badger.Txn, chunk cid.Cid) (has bool) {
	_ = each(txn, p.key(tagChunk, chunkPart(chunk)), false, func(*badger.Item, []byte) (bool, error) {
		has = true
		return false, nil
	})
	return has
}

// announceSoon has a chunk announced, unless that is planned or was done.
func (p *Provider) announceSoon(txn *badger.Txn, chunk cid.Cid) error {
	key := p.key(tagTold, chunkPart(chunk))
	_, err := txn.Get(key)
	if err == nil || !errors.Is(err, badger.ErrKeyNotFound) {
		return err
	}
	return errors.Join(txn.Set(key, timePart(0)), txn.Set(p.key(tagAnnounce, timePart(0), chunkPart(chunk)), nil))
}

// announceAt moves the time of a chunk's next announcement; a negative time ends announcing it.
func (p *Provider) announceAt(txn *badger.Txn, chunk cid.Cid, unix int64) error {
	key := p.key(tagTold, chunkPart(chunk))
	item, err := txn.Get(key)
	if err != nil && !errors.Is(err, badger.ErrKeyNotFound) {
		return err
	}
	if err == nil {
		err := item.Value(func(b []byte) error {
			if len(b) != 8 {
				return fmt.Errorf("time of %d bytes", len(b))
			}
			return txn.Delete(p.key(tagAnnounce, timePart(int64(binary.BigEndian.Uint64(b))), chunkPart(chunk)))
		})
		if err != nil {
			return err
		}
	}
	if unix < 0 {
		return txn.Delete(key)
	}
	return errors.Join(txn.Set(key, timePart(unix)), txn.Set(p.key(tagAnnounce, timePart(unix), chunkPart(chunk)), nil))
}
