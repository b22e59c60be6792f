package swarm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/exchange"
)

// Holder is a peer that keeps what it is told to of a dataset and serves it with the exchange, as a node
// does. It knows the manifests whose columns it keeps, and tells who asks.
type Holder struct {
	Shelf *Shelf

	host     host.Host
	exchange *exchange.Exchange
	stop     context.CancelFunc
	ended    chan error

	mu    sync.Mutex // guards known
	known map[cid.Cid][]cid.Cid
}

// NewHolder runs a peer on loopback that keeps its blocks in a new file in dir. The caller closes it.
func NewHolder(dir string) (*Holder, error) {
	shelf, err := newShelf(filepath.Join(dir, "shelf"))
	if err != nil {
		return nil, err
	}
	h := &Holder{Shelf: shelf, ended: make(chan error, 1), known: make(map[cid.Cid][]cid.Cid)}
	if h.host, err = exchange.NewHost(exchange.HostConfig{}); err != nil {
		return nil, errors.Join(err, shelf.file.Close())
	}
	network, err := exchange.NewHostNetwork(exchange.NetworkConfig{Host: h.host, Serve: exchange.ServeConfig{Store: shelf, Manifests: h.manifests}})
	if err == nil {
		h.exchange, err = exchange.New(exchange.Config{Network: network, Providers: nobody{}, Store: shelf})
	}
	if err != nil {
		return nil, errors.Join(err, h.host.Close(), shelf.file.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	go func() { h.ended <- h.exchange.Run(ctx) }()
	return h, nil
}

// Close ends the peer and removes its file.
func (h *Holder) Close() error {
	h.stop()
	return errors.Join(<-h.ended, h.host.Close(), h.Shelf.file.Close(), os.Remove(h.Shelf.file.Name()))
}

// Address is where it listens, with its peer ID.
func (h *Holder) Address() string { return fmt.Sprintf("%s/p2p/%s", h.host.Addrs()[0], h.host.ID()) }

// ID is its peer ID.
func (h *Holder) ID() string { return h.host.ID().String() }

// Connect dials a peer.
func (h *Holder) Connect(ctx context.Context, address string) error {
	info, err := peer.AddrInfoFromString(address)
	if err != nil {
		return err
	}
	return h.host.Connect(ctx, *info)
}

// Tell has the peer say that a manifest is for root.
func (h *Holder) Tell(root, manifest cid.Cid) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known[root] = append(h.known[root], manifest)
}

func (h *Holder) manifests(root cid.Cid) []cid.Cid {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.known[root]
}

// Fetch gets a block from the peers it is connected to, unless it keeps it, and keeps it.
func (h *Holder) Fetch(ctx context.Context, c, dataset cid.Cid) ([]byte, error) {
	b, err := h.Shelf.Get(ctx, c)
	if errors.Is(err, exchange.ErrNotFound) {
		b, err = h.exchange.Fetch(ctx, exchange.Want{CID: c, Dataset: dataset})
	}
	if err != nil {
		return nil, err
	}
	return b.RawData(), nil
}

// Manifest fetches a manifest, all its parts, and tells whoever asks for it.
func (h *Holder) Manifest(ctx context.Context, c cid.Cid) (*erasure.Manifest, error) {
	m, err := erasure.OpenManifest(ctx, c, func(ctx context.Context, part cid.Cid) ([]byte, error) { return h.Fetch(ctx, part, c) })
	if err != nil {
		return nil, err
	}
	for part, err := range m.Parts(ctx) {
		if err == nil {
			_, err = h.Fetch(ctx, part, c)
		}
		if err != nil {
			return nil, err
		}
	}
	h.Tell(m.Root(), c)
	return m, nil
}

// Columns fetches all shards of some columns: the first k are those of data, the others of parity, so that
// no column has two shards of a stripe.
func (h *Holder) Columns(ctx context.Context, m *erasure.Manifest, columns map[int]bool) error {
	k, _ := m.Code()
	work, wctx := errgroup.WithContext(ctx)
	work.SetLimit(256)
	for s, err := range m.Stripes(ctx) {
		if err != nil {
			return errors.Join(err, work.Wait())
		}
		for i, shard := range s.Shards() {
			if columns[ColumnOf(s, k, i)] && shard.Bytes > 0 {
				work.Go(func() error {
					_, err := h.Fetch(wctx, shard.CID, m.Root())
					return err
				})
			}
		}
	}
	return work.Wait()
}

// ColumnOf is the column of the i-th of a stripe's shards.
func ColumnOf(s erasure.Stripe, k, i int) int {
	if i < len(s.Data) {
		return i
	}
	return k + i - len(s.Data)
}

// Hold is a program that keeps columns of a protected dataset. Its arguments are a directory, the
// manifest's CID, the columns' numbers with commas between them, and the address of a peer that has
// everything. When it has fetched all it prints its own address, and serves until its input ends.
func Hold(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 4 {
		return fmt.Errorf("hold: %d arguments", len(args))
	}
	c, err := cid.Decode(args[1])
	if err != nil {
		return err
	}
	columns := make(map[int]bool)
	for _, text := range strings.Split(args[2], ",") {
		n, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		columns[n] = true
	}
	h, err := NewHolder(args[0])
	if err != nil {
		return err
	}
	if err := h.hold(c, columns, args[3]); err != nil {
		return errors.Join(err, h.Close())
	}
	if _, err := fmt.Fprintln(out, h.Address()); err != nil {
		return errors.Join(err, h.Close())
	}
	_, err = io.Copy(io.Discard, in)
	return errors.Join(err, h.Close())
}

func (h *Holder) hold(manifest cid.Cid, columns map[int]bool, from string) error {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := h.Connect(ctx, from); err != nil {
		return err
	}
	m, err := h.Manifest(ctx, manifest)
	if err != nil {
		return err
	}
	return h.Columns(ctx, m, columns)
}
