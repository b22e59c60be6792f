package exchange

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	dhtpb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// maxFreshRecords bounds the records that wait to be written. The DHT writes every 256th by itself.
	maxFreshRecords = 4096
	maxRecordKey    = 80 // bytes of a multihash, as the DHT has it
)

// recordKeeper writes provider records soon after they have come. The DHT itself keeps the last 256 in
// memory until it is closed, so that a node that is killed would forget who has what.
//
// It writes what the DHT would, under the same keys, and bounds how many there are.
type recordKeeper struct {
	ds.Batching
	log   *slog.Logger
	every time.Duration
	most  int64

	count   atomic.Int64 // records in the datastore, about
	dropped atomic.Bool  // some were not taken, and the log says so
	wake    chan struct{}

	mu    sync.Mutex // guards fresh
	fresh map[ds.Key]time.Time
}

func newRecordKeeper(cfg RoutingConfig) *recordKeeper {
	return &recordKeeper{
		Batching: cfg.Datastore, log: cfg.Logger, every: cfg.FlushEvery, most: int64(cfg.Records),
		wake: make(chan struct{}, 1), fresh: make(map[ds.Key]time.Time),
	}
}

// hook sees every message that peers send to the DHT.
func (k *recordKeeper) hook(_ context.Context, s network.Stream, m *dhtpb.Message) {
	if m.GetType() != dhtpb.Message_ADD_PROVIDER {
		return
	}
	from := s.Conn().RemotePeer()
	valid := func(p *peer.AddrInfo) bool { return p.ID == from && len(p.Addrs) > 0 }
	if slices.ContainsFunc(dhtpb.PBPeersToPeerInfos(m.GetProviderPeers()), valid) {
		k.note(m.GetKey(), from)
	}
}

// note takes a record up.
func (k *recordKeeper) note(hash []byte, p peer.ID) {
	if len(hash) == 0 || len(hash) > maxRecordKey {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.fresh) < maxFreshRecords {
		k.fresh[recordKey(hash, p)] = time.Now()
		wake(k.wake)
	}
}

// recordKey is where the DHT keeps a record.
func recordKey(hash []byte, p peer.ID) ds.Key {
	text := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString
	return ds.NewKey(records.ProvidersKeyPrefix + text(hash) + "/" + text([]byte(p)))
}

// run writes records until ctx ends, and what is left then.
func (k *recordKeeper) run(ctx context.Context) {
	k.recount(ctx)
	for ctx.Err() == nil {
		select {
		case <-k.wake:
			sleep(ctx, k.every)
		case <-ctx.Done():
		}
		if err := k.flush(context.WithoutCancel(ctx)); err != nil {
			k.log.Warn("keep provider records", "err", err)
		}
	}
}

// recount counts the records from before.
func (k *recordKeeper) recount(ctx context.Context) {
	all, err := k.Query(ctx, query.Query{Prefix: records.ProvidersKeyPrefix, KeysOnly: true})
	if err != nil {
		k.log.Warn("count provider records", "err", err)
		return
	}
	defer all.Close()
	for r := range all.Next() {
		if r.Error != nil || ctx.Err() != nil {
			return
		}
		k.count.Add(1)
	}
}

func (k *recordKeeper) flush(ctx context.Context) error {
	k.mu.Lock()
	fresh := k.fresh
	k.fresh = make(map[ds.Key]time.Time)
	k.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	b, err := k.Batch(ctx)
	if err != nil {
		return fmt.Errorf("begin batch: %w", err)
	}
	for key, at := range fresh {
		if err := b.Put(ctx, key, binary.AppendVarint(nil, at.UnixNano())); err != nil {
			return fmt.Errorf("put: %w", err)
		}
	}
	if err := b.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if err := k.Sync(ctx, ds.NewKey(records.ProvidersKeyPrefix)); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// Batch implements ds.Batching. A batch passes over records beyond those that are kept: peers could
// fill the disk otherwise.
func (k *recordKeeper) Batch(ctx context.Context) (ds.Batch, error) {
	b, err := k.Batching.Batch(ctx)
	if err != nil {
		return nil, err
	}
	return recordBatch{b, k}, nil
}

type recordBatch struct {
	ds.Batch
	k *recordKeeper
}

// Put implements ds.Batch.
func (b recordBatch) Put(ctx context.Context, key ds.Key, value []byte) error {
	has, err := b.k.Has(ctx, key)
	switch {
	case err != nil:
		return err
	case !has && b.k.count.Load() >= b.k.most:
		if !b.k.dropped.Swap(true) {
			b.k.log.Warn("too many provider records, new ones are not kept", "kept", b.k.most)
		}
		return nil
	case !has:
		b.k.count.Add(1)
	}
	return b.Batch.Put(ctx, key, value)
}

// Delete implements ds.Batch.
func (b recordBatch) Delete(ctx context.Context, key ds.Key) error {
	b.k.count.Add(-1)
	b.k.dropped.Store(false)
	return b.Batch.Delete(ctx, key)
}
