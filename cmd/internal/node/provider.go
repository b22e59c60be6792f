package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/holdfastfs/holdfast/cmd/internal/hint"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/exchange/payment"
	"github.com/holdfastfs/holdfast/uploader/provider"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// rendezvous is the CID that all storage providers announce.
var rendezvous = func() cid.Cid {
	digest, err := multihash.Sum([]byte("holdfast/storage-providers/1"), multihash.SHA2_256, -1)
	if err != nil {
		panic(err) // the hash is one of the standard library
	}
	return cid.NewCidV1(cid.Raw, digest)
}()

// storageTill takes payments for links.
type storageTill struct {
	accounts *payment.Accounts
	book     *payment.Book
	self     peer.ID
}

var _ provider.Till = storageTill{}

// Accept implements provider.Till.
func (t storageTill) Accept(ctx context.Context, from peer.ID, voucher []byte) (uint64, error) {
	v, err := payment.UnmarshalVoucher(voucher)
	if err != nil {
		return 0, err
	}
	grew, err := t.accounts.Accept(ctx, from, v)
	return uint64(grew), err
}

// Received implements provider.Till.
func (t storageTill) Received(_ context.Context, from peer.ID) (uint64, error) {
	sum, err := t.accounts.Received(from)
	return uint64(sum), err
}

// Channel implements provider.Till.
func (t storageTill) Channel(ctx context.Context, from peer.ID, id [32]byte) error {
	c, err := t.book.Channel(ctx, id)
	if err != nil {
		return err
	}
	if c.Payer != from || c.Payee != t.self || c.State != payment.StateOpen {
		return fmt.Errorf("channel %s: %w", c.ID, payment.ErrParty)
	}
	return nil
}

// maxUnread is how many chunks wait to be looked into for manifests.
const maxUnread = 256

var errManyUnread = errors.New("too many chunks wait to be looked into for manifests")

// chunkAnnouncer announces chunks through the durable queue, and has them looked into.
type chunkAnnouncer struct{ s *storage }

// Announce implements provider.Announcer.
func (a chunkAnnouncer) Announce(ctx context.Context, chunk cid.Cid) error {
	if err := a.s.n.exchange.Announce(ctx, chunk); err != nil {
		return err
	}
	select {
	case a.s.unread <- chunk:
		return nil
	default:
		return errManyUnread // it comes again
	}
}

// announceManifests announces the manifests in chunks, which nodes know content by when its writer is gone.
func (s *storage) announceManifests(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-s.unread:
			if err := s.lookInto(ctx, c); err != nil && ctx.Err() == nil {
				s.n.log.Debug("chunk is not looked into", "cid", c, "error", err)
			}
		}
	}
}

func (s *storage) lookInto(ctx context.Context, chunk cid.Cid) error {
	shards, err := s.Chunk(ctx, chunk)
	if err != nil {
		return err
	}
	for _, shard := range shards {
		if !isManifest(shard.CID) {
			continue // parts of manifests are of the same codec, and are no manifests
		}
		_, err := erasure.OpenManifest(ctx, shard.CID, func(ctx context.Context, c cid.Cid) ([]byte, error) {
			b, err := s.Get(ctx, c)
			if err != nil {
				return nil, err
			}
			return b.RawData(), nil
		})
		if err == nil {
			s.n.announceRoot(ctx, shard.CID)
		}
	}
	return nil
}

// storage is the provider that this node is, if it is one.
type storage struct {
	*provider.Provider
	n      *Node
	unread chan cid.Cid // chunks that may have manifests

	mu      sync.Mutex // guards what follows
	stopped bool
	ctx     context.Context // of Run
	work    sync.WaitGroup  // streams
}

// openProvider opens the provider where the settings want one.
func (n *Node) openProvider() error {
	s, r := n.cfg.Settings, n.cfg.Repo
	if !s.Provider {
		return nil
	}
	keep := &storage{n: n, unread: make(chan cid.Cid, maxUnread)}
	p, err := provider.Open(provider.Config{DB: r.DB, Prefix: repo.PrefixProvider, Dir: filepath.Join(r.Dir, "chunks"), Key: r.Key,
		QuotaBytes: int64(s.ProviderQuota), PricePerGiBDay: s.StoragePrice, MaxExpiry: s.MaxExpiry, Region: s.ProviderRegion,
		Till:      storageTill{accounts: n.wallet.storage, book: n.wallet.book, self: n.host.ID()},
		Announcer: chunkAnnouncer{keep}, Logger: n.log})
	if err != nil {
		return hint.Add(fmt.Errorf("keep chunks for others: %w", err), "its disk may be full or damaged")
	}
	keep.Provider = p
	n.provider = keep
	return nil
}

// Run serves streams of the storage protocol and does what time asks for, until ctx ends and no stream is open.
func (s *storage) Run(ctx context.Context) error {
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	s.n.host.SetStreamHandler(seal.ProtocolID, s.serve)
	s.n.announceRoot(ctx, rendezvous)
	var looking sync.WaitGroup
	looking.Go(func() { s.announceManifests(ctx) })
	err := s.Provider.Run(ctx)
	looking.Wait()
	s.n.host.RemoveStreamHandler(seal.ProtocolID)
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.work.Wait()
	return errors.Join(err, s.Close())
}

// serve answers one stream. libp2p calls it on a goroutine of its own.
func (s *storage) serve(stream network.Stream) {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		_ = stream.Reset()
		return
	}
	s.work.Add(1)
	s.mu.Unlock()
	defer s.work.Done()
	from := stream.Conn().RemotePeer()
	if err := s.Serve(s.ctx, from, stream); err != nil {
		s.n.log.Debug("storage request failed", "peer", from, "error", err)
		_ = stream.Reset()
	}
}
