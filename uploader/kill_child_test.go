package uploader

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/exchange/payment"
	farend "github.com/holdfastfs/holdfast/uploader/provider"
)

// role is what a process of the test binary does instead of testing: one end of storage links, with its
// database on the disk and its streams over sockets, that may come to a point where it is killed.
type role struct {
	Dir     string
	Sites   int    // how many providers there are
	Site    int    // the provider it is; a writer where Act is set
	Act     string // a writer's: see acts
	Hasty   bool   // the writer gives links up at once
	Seed    uint64 // of the file
	Later   time.Duration
	KillAt  string
	KillNth int
}

const roleEnv = "HOLDFAST_TEST_ROLE"

func TestMain(m *testing.M) {
	if b := os.Getenv(roleEnv); b != "" {
		if err := child([]byte(b)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child plays a role and prints the points that it came to.
func child(b []byte) error {
	var r role
	if err := json.Unmarshal(b, &r); err != nil {
		return err
	}
	k := &killer{at: r.KillAt, nth: r.KillNth}
	var err error
	if r.Act != "" {
		err = r.write(context.Background(), k)
	} else {
		err = r.serve(k)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(k.seen)
}

// serve is a provider until standard input ends.
func (r role) serve(k *killer) error {
	h, err := r.host(r.Site, k)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return h.close()
}

func (r role) now() time.Time { return time.Now().Add(r.Later) }

func (r role) site(i int) string { return filepath.Join(r.Dir, fmt.Sprint("provider", i)) }

func siteKey(i int) string { return fmt.Sprint("provider-", i) }

// accounts opens payment accounts in a database, and the book that all share.
func (r role) accounts(db *badger.DB, owner string) (*payment.Accounts, *payment.Book, error) {
	book, err := payment.OpenBook(filepath.Join(r.Dir, "book.json"), payment.BookConfig{})
	if err != nil {
		return nil, nil, err
	}
	key, _ := keyOf(new(testing.B), owner)
	a, err := payment.Open(payment.Config{DB: db, Prefix: []byte("pay/"), Ledger: book, Purpose: payment.ForStorage, Key: key})
	return a, book, err
}

// till takes payments as a node's provider does.
type till struct {
	*payment.Accounts
	book *payment.Book
}

func (t till) Accept(ctx context.Context, from peer.ID, b []byte) (uint64, error) {
	v, err := payment.UnmarshalVoucher(b)
	if err != nil {
		return 0, err
	}
	grew, err := t.Accounts.Accept(ctx, from, v)
	return uint64(grew), err
}

func (t till) Received(_ context.Context, from peer.ID) (uint64, error) {
	sum, err := t.Accounts.Received(from)
	return uint64(sum), err
}

func (t till) Channel(ctx context.Context, from peer.ID, id [32]byte) error {
	c, err := t.book.Channel(ctx, id)
	if err == nil && (c.Payer != from || c.Payee != t.Self() || c.State != payment.StateOpen) {
		err = payment.ErrParty
	}
	return err
}

// host is a provider that serves one writer over loopback.
type host struct {
	*farend.Provider
	cfg     farend.Config
	db      *badger.DB
	l       net.Listener
	cancel  context.CancelFunc
	working sync.WaitGroup
}

// reopen opens a database that was open a moment ago. Another process that is just being started may have its
// lock until it runs.
func reopen(dir string) (db *badger.DB, err error) {
	for range 500 {
		if db, err = badger.Open(dbOptions(dir)); err == nil || !strings.Contains(err.Error(), "directory lock") {
			return db, err
		}
		later(10 * time.Millisecond)
	}
	return db, err
}

// host opens a provider, and says where it listens in a file of its folder.
func (r role) host(i int, k *killer) (*host, error) {
	dir := r.site(i)
	db, err := reopen(filepath.Join(dir, "db"))
	if err != nil {
		return nil, err
	}
	h := &host{db: db}
	accounts, book, err := r.accounts(h.db, siteKey(i))
	if err != nil {
		return nil, err
	}
	key, _ := keyOf(new(testing.B), siteKey(i))
	h.cfg = farend.Config{DB: h.db, Prefix: []byte("prov/"), Dir: filepath.Join(dir, "chunks"), Key: key,
		QuotaBytes: 64 << 20, PricePerGiBDay: 1 << 30, Till: killTill{till{accounts, book}, k}, Now: r.now}
	if h.Provider, err = farend.Open(h.cfg); err != nil {
		return nil, err
	}
	if h.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	h.working.Go(func() { h.accept(ctx, k) })
	h.working.Go(func() { _ = h.Run(ctx) })
	temp := filepath.Join(dir, "addr.new")
	if err := os.WriteFile(temp, []byte(h.l.Addr().String()), 0o600); err != nil {
		return nil, err
	}
	return h, os.Rename(temp, filepath.Join(dir, "addr"))
}

func (h *host) accept(ctx context.Context, k *killer) {
	_, writer := keyOf(new(testing.B), "writer")
	for {
		c, err := h.l.Accept()
		if err != nil {
			return
		}
		h.working.Go(func() { _ = h.Serve(ctx, writer, &killConn{Conn: c, k: k}) })
	}
}

// rest ends all work. The provider can still be asked.
func (h *host) rest() error {
	err := h.l.Close()
	h.cancel()
	h.working.Wait()
	return err
}

func (h *host) close() error {
	return errors.Join(h.rest(), h.Provider.Close(), h.db.Close())
}

// makeFile makes a file of three groups of two columns, and its shards.
func makeFile(seed uint64) (File, map[cid.Cid][]byte) {
	random := rand.NewChaCha8(sha256.Sum256(fmt.Append(nil, seed)))
	blocks := make(map[cid.Cid][]byte)
	f := File{ID: FileID{1}, Name: "file", Policy: Policy{AutoRenew: true}}
	for range 3 {
		g := Group{Parity: 1}
		for range 2 {
			var chunk erasure.Chunk
			for range 2 {
				b := make([]byte, 70<<10)
				_, _ = random.Read(b)
				c := cidOf(string(b))
				blocks[c] = b
				chunk = append(chunk, erasure.Shard{CID: c, Bytes: len(b)})
			}
			id, descriptor, err := chunk.Encode()
			if err != nil {
				panic(err)
			}
			g.Columns = append(g.Columns, Column{Chunk: id, Descriptor: descriptor})
		}
		f.Groups = append(f.Groups, g)
	}
	return f, blocks
}

// ReadShard implements Chunks: staged bytes are files.
func (r role) ReadShard(_ context.Context, c cid.Cid) (b []byte, checked bool, err error) {
	b, err = os.ReadFile(filepath.Join(r.Dir, "staged", c.String()))
	return b, false, err
}

// Find implements Candidates.
func (r role) Find(context.Context) (found []Candidate, err error) {
	for i := range r.Sites {
		_, id := keyOf(new(testing.B), siteKey(i))
		found = append(found, Candidate{ID: id})
	}
	return found, nil
}

// streams opens streams to providers, wherever they listen now.
type streams struct {
	role
	k *killer
}

// Open implements Providers.
func (s streams) Open(ctx context.Context, to peer.ID) (Stream, error) {
	for i := range s.Sites {
		if _, id := keyOf(new(testing.B), siteKey(i)); id != to {
			continue
		}
		addr, err := os.ReadFile(filepath.Join(s.site(i), "addr"))
		if err != nil {
			return nil, err
		}
		c, err := new(net.Dialer).DialContext(ctx, "tcp", string(addr))
		if err != nil {
			return nil, err
		}
		return &killStream{Conn: c, k: s.k}, nil
	}
	return nil, fmt.Errorf("no provider %s", to)
}

// config is a writer's whose links wait for each other, so that each of them is seen in each state.
func (r role) config(db *badger.DB, pay Payments, k *killer) (Config, error) {
	_, self := keyOf(new(testing.B), "writer")
	c := Config{DB: db, Prefix: []byte("up/"), Self: self, Secret: make([]byte, 32), Chunks: r, Providers: streams{r, k}, Candidates: r,
		Payments: killPayments{pay, k}, MaxPricePerGiBDay: 1 << 30, Now: r.now}
	c.Limits = Limits{PerProvider: 1, Tries: 1000, BackoffFrom: 5 * time.Millisecond, BackoffTo: 40 * time.Millisecond, SearchEvery: 40 * time.Millisecond}
	if r.Hasty {
		c.Limits.Tries = 1
	}
	err := c.defaults()
	c.Limits.SealedBytes = 150 << 10
	return c, err
}

// acts are what a writer does in one life: it begins something, and has ended when a condition holds.
var acts = map[string]struct {
	begin func(ctx context.Context, u *Uploader, f File) error
	done  func(m *machine) bool
}{
	"upload": {func(ctx context.Context, u *Uploader, f File) error { return u.Put(ctx, f) }, settled},
	"audit":  {func(ctx context.Context, u *Uploader, _ File) error { return u.Repair(ctx) }, settled},
	"renew":  {func(context.Context, *Uploader, File) error { return nil }, renewed},
	"remove": {func(ctx context.Context, u *Uploader, f File) error {
		if err := u.Remove(ctx, f.ID); !errors.Is(err, ErrNotFound) {
			return err
		}
		return nil
	}, func(m *machine) bool { return len(m.links) == 0 && len(m.chunks) == 0 }},
}

// settled says whether a file is uploaded, paid for and audited, and nothing is left to be told to anybody.
func settled(m *machine) bool {
	for _, f := range m.files {
		if m.status(f).State != Uploaded {
			return false
		}
	}
	for _, l := range m.links {
		if l.open() || l.Release || l.auditDue || l.State == LinkSigned && !l.settled() {
			return false
		}
	}
	return len(m.files) > 0 && len(m.flights) == 0
}

// renewed says whether besides that all links last longer than those before.
func renewed(m *machine) bool {
	for _, l := range m.links {
		if l.live() && l.expiry().Before(m.wall.Add(someLifetime-time.Hour)) {
			return false
		}
	}
	return settled(m)
}

// write is one life of a writer.
func (r role) write(ctx context.Context, k *killer) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	db, err := reopen(filepath.Join(r.Dir, "writer"))
	if err != nil {
		return err
	}
	accounts, _, err := r.accounts(db, "writer")
	if err != nil {
		return err
	}
	cfg, err := r.config(db, accounts, k)
	if err != nil {
		return err
	}
	j, err := openJournal(db, cfg.Prefix)
	if err != nil {
		return err
	}
	u, err := open(cfg, killJournal{j, k})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- u.Run(running) }()
	act := acts[r.Act]
	f, _ := makeFile(r.Seed)
	if err = act.begin(ctx, u, f); err == nil {
		err = u.until(ctx, act.done)
	}
	stop()
	return errors.Join(err, <-ended, db.Close())
}

// until waits for a condition.
func (u *Uploader) until(ctx context.Context, done func(m *machine) bool) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, text := false, ""
		err := u.ask(ctx, func(m *machine) error {
			m.round++ // what was computed before is old
			if ok = done(m); !ok {
				for _, l := range m.links {
					text += fmt.Sprintf("\n%s of %s is %s: %s", l.ID, l.Chunk, l.State, l.Reason)
				}
			}
			return nil
		})
		if err != nil || ok {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w%s", context.Cause(ctx), text)
		}
	}
}
