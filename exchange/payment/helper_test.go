package payment

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

// testKey is the same key for the same name, every time.
func testKey(t testing.TB, name string) (crypto.PrivKey, peer.ID) {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	must(t, err)
	id, err := peer.IDFromPrivateKey(key)
	must(t, err)
	return key, id
}

// clock is a time that moves when it is told to.
type clock struct{ unix atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.unix.Store(1_800_000_000)
	return c
}

func (c *clock) now() time.Time          { return time.Unix(c.unix.Load(), 0) }
func (c *clock) advance(d time.Duration) { c.unix.Add(int64(d / time.Second)) }

func openDB(t testing.TB, dir string) *badger.DB {
	t.Helper()
	db, err := badger.Open(badger.DefaultOptions(dir).WithLoggingLevel(badger.ERROR).WithMemTableSize(1 << 20).
		WithValueThreshold(1 << 10).WithValueLogFileSize(1 << 20).WithBlockCacheSize(1 << 20).WithIndexCacheSize(1 << 20).
		WithNumCompactors(2).WithMetricsEnabled(false))
	must(t, err)
	return db
}

// node is one peer with its database, which can crash.
type node struct {
	t      testing.TB
	key    crypto.PrivKey
	id     peer.ID
	cfg    Config
	root   string
	gen    int
	db     *badger.DB
	acc    *Accounts
	shadow string // folder with what the disk surely has; "" when not followed
}

func newNode(t testing.TB, name string, c *clock, l Ledger, change func(*Config)) *node {
	t.Helper()
	n := &node{t: t, root: t.TempDir()}
	n.key, n.id = testKey(t, name)
	n.cfg = Config{Prefix: []byte("pay/"), Ledger: l, Key: n.key, Now: c.now}
	if change != nil {
		change(&n.cfg)
	}
	n.open()
	t.Cleanup(func() { n.db.Close() })
	return n
}

func (n *node) dir(kind string) string {
	return filepath.Join(n.root, fmt.Sprintf("%s-%d", kind, n.gen))
}

func (n *node) open() {
	n.t.Helper()
	n.db = openDB(n.t, n.dir("db"))
	n.cfg.DB = n.db
	acc, err := Open(n.cfg)
	must(n.t, err)
	n.acc = acc
}

// followDisk keeps a copy of what every sync surely brought to the disk.
func (n *node) followDisk() {
	real := n.acc.disk.Flush
	n.acc.disk.Flush = func() error {
		if err := real(); err != nil {
			return err
		}
		n.shadow = n.dir("disk")
		return copyDir(n.dir("db"), n.shadow)
	}
	must(n.t, n.acc.Sync())
}

// crash drops the process: what was written to files stays. A power cut leaves only what was synced.
func (n *node) crash(powerCut bool) {
	n.t.Helper()
	from, follows := n.dir("db"), n.shadow != ""
	if powerCut {
		from = n.shadow
	}
	old, oldDir := n.db, n.dir("db")
	n.gen++
	must(n.t, copyDir(from, n.dir("db")))
	must(n.t, old.Close())
	must(n.t, os.RemoveAll(oldDir))
	n.open()
	if follows {
		n.followDisk()
	}
}

// copyDir copies a database as it is at one moment: again, if tables came or went meanwhile.
func copyDir(from, to string) error {
	for {
		before, err := tables(from)
		if err == nil {
			err = copyFiles(from, to)
		}
		if err != nil {
			return err
		}
		if after, err := tables(from); err != nil || before == after {
			return err
		}
	}
}

// tables tells one set of tables and their manifest from another.
func tables(dir string) (string, error) {
	manifest, err := os.ReadFile(filepath.Join(dir, "MANIFEST"))
	if err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	return fmt.Sprintf("%x %v", manifest, entries), err
}

func copyFiles(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "LOCK" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 && filepath.Ext(e.Name()) == ".mem" {
			continue // a log whose table is written is emptied and then removed
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), b, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (n *node) pay(to peer.ID, amount Amount, ref string) Voucher {
	n.t.Helper()
	v, err := n.acc.Pay(context.Background(), Payment{To: to, Amount: amount, Ref: []byte(ref)})
	must(n.t, err)
	return v
}

func (n *node) accept(from peer.ID, v Voucher) Amount {
	n.t.Helper()
	grew, err := n.acc.Accept(context.Background(), from, v)
	must(n.t, err)
	return grew
}

func (n *node) ensure(to peer.ID, deposit Amount) ChannelID {
	n.t.Helper()
	id, err := n.acc.EnsureChannel(context.Background(), to, 1, deposit)
	must(n.t, err)
	return id
}

func (n *node) maintain() {
	n.t.Helper()
	must(n.t, n.acc.Maintain(context.Background()))
}

func (n *node) sums(p peer.ID) (paid, received Amount) {
	n.t.Helper()
	paid, err := n.acc.Paid(p)
	must(n.t, err)
	received, err = n.acc.Received(p)
	must(n.t, err)
	return paid, received
}

func newBook(t testing.TB, c *clock) *Book {
	t.Helper()
	b, err := OpenBook(filepath.Join(t.TempDir(), "book.json"), BookConfig{Now: c.now, Keep: 1000 * 24 * time.Hour})
	must(t, err)
	return b
}

// checkBook fails unless accounts and deposits sum to zero.
func checkBook(t testing.TB, b *Book) {
	t.Helper()
	all, err := b.Accounts(context.Background())
	must(t, err)
	sum := int64(0)
	for _, a := range all {
		sum += a.Balance + int64(a.Locked)
	}
	if sum != 0 {
		t.Fatalf("accounts sum to %d: %v", sum, all)
	}
}
