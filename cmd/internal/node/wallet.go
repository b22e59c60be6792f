package node

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/hint"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
	"github.com/holdfastfs/holdfast/exchange"
	"github.com/holdfastfs/holdfast/exchange/payment"
)

// blockBudget is the budget of all blocks that are bought. Those of single datasets have its name, a slash and
// the root.
const blockBudget = "blocks"

// wallet pays peers for blocks, and takes their payments.
type wallet struct {
	accounts *payment.Accounts // for blocks
	storage  *payment.Accounts // for links
	book     *payment.Book
	deposit  payment.Amount
	network  *exchange.HostNetwork // set before the exchange runs
}

var (
	_ exchange.Purse = (*wallet)(nil)
	_ exchange.Till  = (*wallet)(nil)
)

// openWallet opens the accounts of this node, in the book that the nodes of this machine share.
func (n *Node) openWallet() error {
	path, err := ledgerPath(n.cfg.Settings.Ledger)
	if err != nil {
		return err
	}
	book, err := payment.OpenBook(path, payment.BookConfig{})
	if err != nil {
		return hint.Add(err, "name another file with ledger: in %s/config.yaml", n.cfg.Repo.Dir)
	}
	cfg := payment.Config{DB: n.cfg.Repo.DB, Prefix: repo.PrefixPayment, Ledger: book, Purpose: payment.ForBlocks, Key: n.cfg.Repo.Key, Logger: n.log}
	accounts, err := payment.Open(cfg)
	if err != nil {
		return err
	}
	cfg.Prefix, cfg.Purpose = repo.PrefixStoragePayment, payment.ForStorage
	storage, err := payment.Open(cfg)
	if err != nil {
		return err
	}
	n.wallet = &wallet{accounts: accounts, storage: storage, book: book, deposit: payment.Amount(n.cfg.Settings.Deposit)}
	return nil
}

func ledgerPath(path string) (string, error) {
	if path != "" {
		return path, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", hint.Add(fmt.Errorf("find the book of payment channels: %w", err), "name it with HOLDFAST_LEDGER")
	}
	return filepath.Join(home, ".holdfast-ledger.json"), nil
}

// Pay implements exchange.Purse: one payment for each dataset, all under ref, and the last voucher goes out.
func (w *wallet) Pay(ctx context.Context, p peer.ID, ref []byte, dues []exchange.Due) error {
	sums := make(map[cid.Cid]payment.Amount)
	var order []cid.Cid
	for _, d := range dues {
		if _, known := sums[d.Dataset]; !known {
			order = append(order, d.Dataset)
		}
		sum, err := sums[d.Dataset].Add(payment.Amount(d.Amount))
		if err != nil {
			return err
		}
		sums[d.Dataset] = sum
	}
	for _, root := range order {
		v, err := w.pay(ctx, payment.Payment{To: p, Amount: sums[root], Ref: refOf(ref, root),
			Budgets: []payment.Budget{{Key: blockBudget}, {Key: budgetOf(root)}}})
		if err != nil {
			return err
		}
		if err := w.send(p, v); err != nil {
			return err
		}
	}
	for _, root := range order { // all is paid: nobody will ask for it by this ref again
		if err := w.accounts.Forget(refOf(ref, root)); err != nil {
			return err
		}
	}
	return nil
}

// refOf is the ref of what is paid for one dataset under ref.
func refOf(ref []byte, root cid.Cid) []byte { return append(ref[:len(ref):len(ref)], root.Bytes()...) }

// pay pays, through a new channel where there is none with enough in it.
func (w *wallet) pay(ctx context.Context, p payment.Payment) (payment.Voucher, error) {
	v, err := w.accounts.Pay(ctx, p)
	if !errors.Is(err, payment.ErrNoChannel) && !errors.Is(err, payment.ErrDeposit) {
		return v, err
	}
	if _, err := w.accounts.EnsureChannel(ctx, p.To, p.Amount, max(w.deposit, p.Amount)); err != nil {
		return v, err
	}
	return w.accounts.Pay(ctx, p)
}

func (w *wallet) send(p peer.ID, vouchers ...payment.Voucher) error {
	var out [][]byte
	for _, v := range vouchers {
		if v.Amount == 0 {
			continue
		}
		b, err := v.Marshal()
		if err != nil {
			return err
		}
		out = append(out, b)
	}
	w.network.Pay(p, out)
	return nil
}

// Spent implements exchange.Purse. Where it can't be read, as good as everything was spent.
func (w *wallet) Spent(dataset cid.Cid) (today, onDataset exchange.Amount) {
	day, err := w.accounts.SpentToday(blockBudget)
	if err != nil {
		return math.MaxInt64, math.MaxInt64
	}
	if !dataset.Defined() {
		return exchange.Amount(day), 0
	}
	all, err := w.accounts.Spent(budgetOf(dataset))
	if err != nil {
		return exchange.Amount(day), math.MaxInt64
	}
	return exchange.Amount(day), exchange.Amount(all)
}

// budgetOf names a dataset's budget. Long CIDs, which carry their content or a long hash, share one by their end.
func budgetOf(root cid.Cid) string {
	text := root.String()
	return blockBudget + "/" + text[max(0, len(text)-100):]
}

// Accept implements exchange.Till.
func (w *wallet) Accept(ctx context.Context, from peer.ID, voucher []byte) (exchange.Amount, error) {
	v, err := payment.UnmarshalVoucher(voucher)
	if err != nil {
		return 0, err
	}
	grew, err := w.accounts.Accept(ctx, from, v)
	return exchange.Amount(grew), err
}

// again sends a peer that has come the last payments, as they may have been lost on the way.
func (w *wallet) again(ctx context.Context, p peer.ID) ([][]byte, error) {
	vouchers, err := w.accounts.Last(ctx, p)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, v := range vouchers {
		b, err := v.Marshal()
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// spending is what the settings say may be paid for a dataset.
func spending(s repo.Config) exchange.Spending {
	return exchange.Spending{MaxPricePerMiB: exchange.Amount(s.MaxPrice), Budget: exchange.Amount(s.Budget), PerSecond: exchange.Amount(s.PerSecond)}
}

// mayRead returns the root that a command reads, and lets it pay for that and for the manifest that names it.
func (n *Node) mayRead(ctx context.Context, c cid.Cid, s api.Spending) (cid.Cid, error) {
	if err := n.allow(c, s); err != nil {
		return cid.Undef, err
	}
	root, err := n.rootOf(ctx, c)
	if err != nil || root.Equals(c) {
		return root, err
	}
	return root, n.allow(root, s)
}

// allow lets a command pay for what it asks for, if it says so.
func (n *Node) allow(root cid.Cid, s api.Spending) error {
	if s == (api.Spending{}) {
		return nil
	}
	if !root.Defined() {
		return &api.Error{Code: api.CodeUsage, Message: "a price is paid for the content of one CID", Advice: "for all of it set max-price: and budget: in config.yaml"}
	}
	may := spending(n.cfg.Settings)
	if s.MaxPrice != nil {
		may.MaxPricePerMiB = exchange.Amount(*s.MaxPrice)
	}
	if s.Budget != nil {
		may.Budget = exchange.Amount(*s.Budget)
	}
	if may.MaxPricePerMiB > 0 && may.Budget == 0 {
		return &api.Error{Code: api.CodeUsage, Message: "a price may be paid, but nothing in all", Advice: "name the most that the content may cost with --budget"}
	}
	return n.exchange.SetSpending(root, may)
}

// Channels lists the payment channels of the node.
func (n *Node) Channels(ctx context.Context) ([]api.Channel, error) {
	blocks, err := n.wallet.accounts.Channels(ctx)
	if err != nil {
		return nil, err
	}
	storage, err := n.wallet.storage.Channels(ctx)
	if err != nil {
		return nil, err
	}
	out := []api.Channel{}
	for at, i := range append(blocks, storage...) {
		c := api.Channel{ID: i.ID.String(), Peer: i.Peer.String(), Direction: string(i.Direction), Deposit: uint64(i.Deposit),
			Amount: uint64(i.Amount), Settled: uint64(i.Settled), State: string(i.State), Opened: i.Opened}
		if c.For = "blocks"; at >= len(blocks) {
			c.For = "storage"
		}
		if !i.Closed.IsZero() {
			c.Closed = &i.Closed
		}
		out = append(out, c)
	}
	return out, nil
}

// CloseChannels closes the payment channels with a peer, in both directions.
func (n *Node) CloseChannels(ctx context.Context, id string) ([]api.Channel, error) {
	p, err := peer.Decode(id)
	if err != nil {
		return nil, &api.Error{Code: api.CodeUsage, Message: fmt.Sprintf("%q is not a peer ID", id)}
	}
	closed := false
	for _, accounts := range []*payment.Accounts{n.wallet.accounts, n.wallet.storage} {
		switch err := accounts.CloseChannel(ctx, p); {
		case err == nil:
			closed = true
		case !errors.Is(err, payment.ErrNoChannel):
			return nil, err
		}
	}
	if !closed {
		return nil, &api.Error{Code: api.CodeNotFound, Message: "there is no channel with it"}
	}
	return n.Channels(ctx)
}
