package uploader

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/holdfastfs/holdfast/exchange/payment"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

func openDB(t testing.TB, dir string) *badger.DB {
	t.Helper()
	db, err := badger.Open(dbOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func dbOptions(dir string) badger.Options {
	return badger.DefaultOptions(dir).WithLoggingLevel(badger.ERROR).WithMemTableSize(1 << 20).
		WithValueThreshold(1 << 10).WithValueLogFileSize(4 << 20).WithBlockCacheSize(1 << 20).WithIndexCacheSize(1 << 20).
		WithNumCompactors(2).WithMetricsEnabled(false)
}

// TestJournalKeepsAll writes records of all kinds, many at once, and reads them after a restart.
func TestJournalKeepsAll(t *testing.T) {
	dir := t.TempDir()
	db := openDB(t, dir)
	j, err := openJournal(db, []byte("up/"))
	if err != nil {
		t.Fatal(err)
	}
	want := ready{
		files: []fileRecord{{ID: FileID{1}, Name: "a/b", Groups: []GroupID{{2}}, Policy: Policy{3, time.Hour, true}, Expiry: 4, Cancelled: true}},
		links: []record{{
			ID: seal.LinkID{5}, Chunk: cidOf("c"), Provider: "p", State: LinkFailed, Bytes: 6, Price: 7, Expiry: 8, Created: 9, Order: 10,
			Root: [32]byte{11}, Pledge: []byte{12}, Paid: true, Voucher: []byte{13}, Delivered: true, Reason: "why", Cause: true,
			Release: true, Renews: seal.LinkID{14},
		}},
	}
	g := groupRecord{ID: GroupID{2}, Copies: 2, Parity: 1}
	for i := range 60 { // more than a transaction takes
		c := chunkRecord{ID: cidOf(fmt.Sprint("chunk", i)), Bytes: int64(i + 1), Descriptor: bytes.Repeat([]byte{byte(i)}, 50<<10)}
		want.chunks = append(want.chunks, c)
		g.Chunks = append(g.Chunks, c.ID)
	}
	want.groups = []groupRecord{g}
	if err := j.commit(&want); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = openDB(t, dir)
	defer db.Close()
	if j, err = openJournal(db, []byte("up/")); err != nil {
		t.Fatal(err)
	}
	got, err := j.load()
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.files, want.files) || !reflect.DeepEqual(got.links, want.links) || !reflect.DeepEqual(got.groups, want.groups) {
		t.Errorf("read %+v, wrote %+v", got, want)
	}
	if len(got.chunks) != len(want.chunks) {
		t.Errorf("read %d chunks, wrote %d", len(got.chunks), len(want.chunks))
	}
	for _, c := range want.chunks {
		if d, err := j.descriptor(c.ID); err != nil || !bytes.Equal(d, c.Descriptor) {
			t.Errorf("descriptor of %s: %d bytes, %v", c.ID, len(d), err)
		}
	}
	checkErased(t, j, &want)
}

func checkErased(t *testing.T, j *badgerJournal, r *ready) {
	t.Helper()
	gone := ready{goneFiles: []FileID{r.files[0].ID}, goneGroups: []GroupID{r.groups[0].ID}, goneLinks: []seal.LinkID{r.links[0].ID}, goneChunks: r.groups[0].Chunks}
	if err := j.commit(&gone); err != nil {
		t.Fatal(err)
	}
	c, err := j.load()
	if err != nil || len(c.files)+len(c.groups)+len(c.chunks)+len(c.links) > 0 {
		t.Errorf("%+v is left, %v", c, err)
	}
	if _, err := j.descriptor(r.chunks[0].ID); !errors.Is(err, badger.ErrKeyNotFound) {
		t.Errorf("descriptor of an erased chunk: %v", err)
	}
}

func TestJournalRefuses(t *testing.T) {
	db := openDB(t, t.TempDir())
	defer db.Close()
	j, err := openJournal(db, []byte("up/"))
	if err != nil {
		t.Fatal(err)
	}
	set := func(key, value []byte) {
		t.Helper()
		if err := db.Update(func(txn *badger.Txn) error { return txn.Set(key, value) }); err != nil {
			t.Fatal(err)
		}
	}
	set(j.key(tagLink, make([]byte, 16)...), []byte("no record"))
	if _, err := j.load(); !errors.Is(err, errJournal) {
		t.Errorf("load damaged journal: %v", err)
	}
	set(j.key(tagVersion), []byte{journalVersion + 1})
	if _, err := openJournal(db, []byte("up/")); !errors.Is(err, errJournal) {
		t.Errorf("open journal of a later version: %v", err)
	}
}

// priced is a network whose providers want money, and a writer with accounts in a database on disk.
func priced(t *testing.T) (*network, Config, *payment.Accounts) {
	t.Helper()
	n := newNetwork(t, 4)
	for _, s := range n.order {
		s.price = 1 << 40
	}
	db := openDB(t, t.TempDir())
	t.Cleanup(func() { db.Close() })
	book, err := payment.OpenBook(filepath.Join(t.TempDir(), "book.json"), payment.BookConfig{})
	if err != nil {
		t.Fatal(err)
	}
	key, _ := keyOf(t, "writer")
	accounts, err := payment.Open(payment.Config{DB: db, Prefix: []byte("pay/"), Ledger: book, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	c := n.config()
	c.DB, c.Prefix, c.Payments, c.MaxPricePerGiBDay = db, []byte("up/"), accounts, 1<<41
	return n, c, accounts
}

// TestPaysOnDisk uploads to providers that want money, with restarts, with a journal and accounts on disk.
func TestPaysOnDisk(t *testing.T) {
	n, cfg, accounts := priced(t)
	a, b := n.file("a", 4, Policy{}), n.file("b", 3, Policy{})
	var price uint64
	for i, f := range []File{a, b, a} {
		j, err := openJournal(cfg.DB, cfg.Prefix)
		if err != nil {
			t.Fatal(err)
		}
		u, stop := start(t, cfg, j)
		if err := u.AddFile(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		if err := u.Watch(t.Context(), func(s FileStatus) bool { return s.ID != f.ID || s.State != Uploaded }); err != nil {
			t.Fatal(err)
		}
		price = 0
		links, err := u.Links(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			price += l.Price
		}
		if i < 2 {
			stop()
			continue
		}
		waitSettled(t, u)
		stop()
	}
	n.checkStored(a, 1)
	n.checkStored(b, 1)
	spent, err := accounts.Spent(Budget)
	if err != nil || uint64(spent) != price || price == 0 {
		t.Errorf("%d is spent for links of %d, %v", spent, price, err)
	}
	for _, s := range n.order {
		channels := 0
		list, err := accounts.Channels(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			if c.Peer == s.id {
				channels++
			}
		}
		if channels != 1 {
			t.Errorf("%d channels to a provider of several links", channels)
		}
		for id, times := range s.credit {
			if times < 1 || s.links[id].pledge == nil {
				t.Errorf("link %s: %d vouchers", id, times)
			}
		}
	}
}

// waitSettled waits until all vouchers are delivered.
func waitSettled(t *testing.T, u *Uploader) {
	t.Helper()
	for settled := false; !settled; {
		err := u.ask(t.Context(), func(m *machine) error {
			settled = true
			for _, l := range m.links {
				settled = settled && (!l.live() || l.State == LinkSigned && l.settled())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestNoPledgeNoPay: the journal itself refuses that a link is paid that has no pledge.
func TestNoPledgeNoPay(t *testing.T) {
	_, cfg, accounts := priced(t)
	j, err := openJournal(cfg.DB, cfg.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	_, to := keyOf(t, "provider-0")
	l := record{ID: seal.LinkID{1}, Chunk: cidOf("c"), Provider: to, State: LinkAskingSignature, Price: 5, Bytes: 1, Expiry: 1}
	if err := j.commit(&ready{links: []record{l}}); err != nil {
		t.Fatal(err)
	}
	u, err := open(cfg, j)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := accounts.EnsureChannel(t.Context(), to, 10, 10); err != nil {
		t.Fatal(err)
	}
	if _, err := u.pay(t.Context(), &l); !errors.Is(err, errNoPledge) {
		t.Errorf("pay without a pledge: %v", err)
	}
	if spent, err := accounts.Spent(Budget); spent != 0 || err != nil {
		t.Errorf("%d is spent, %v", spent, err)
	}
	l.State, l.Pledge = LinkSigned, []byte("pledge")
	if err := j.commit(&ready{links: []record{l}}); err != nil {
		t.Fatal(err)
	}
	first, err := u.pay(t.Context(), &l)
	if err != nil {
		t.Fatal(err)
	}
	again, err := u.pay(t.Context(), &l) // after a crash before the machine has heard of it
	if err != nil || !bytes.Equal(first, again) {
		t.Errorf("paid twice: %x and %x, %v", first, again, err)
	}
	if spent, err := accounts.Spent(Budget); spent != 5 || err != nil {
		t.Errorf("%d is spent, %v", spent, err)
	}
	c, err := j.load()
	if err != nil || !c.links[0].Paid || !bytes.Equal(c.links[0].Voucher, first) {
		t.Errorf("link is %+v, %v", c.links, err)
	}
}
