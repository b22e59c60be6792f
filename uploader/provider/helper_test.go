package provider

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/exchange/payment"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantRefusal(t testing.TB, err error, code seal.RefusalCode) {
	t.Helper()
	if !errors.Is(err, &seal.Refusal{Code: code}) {
		t.Fatalf("got %v, want refusal %s", err, code)
	}
}

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
		WithValueThreshold(16 << 10).WithValueLogFileSize(4 << 20).WithBlockCacheSize(1 << 20).WithIndexCacheSize(1 << 20).
		WithNumCompactors(2).WithMetricsEnabled(false))
	must(t, err)
	return db
}

// fakeTill takes vouchers of the form: channel's first byte, then the sum paid so far. It is durable
// as far as tests are concerned: it lives on when the provider's process ends.
type fakeTill struct {
	mu       sync.Mutex
	received map[peer.ID]uint64
	channels map[peer.ID][32]byte
	broken   error
}

func newTill() *fakeTill {
	return &fakeTill{received: map[peer.ID]uint64{}, channels: map[peer.ID][32]byte{}}
}

func fakeVoucher(sum uint64) []byte { return binary.BigEndian.AppendUint64(nil, sum) }

func (t *fakeTill) open(from peer.ID) [32]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := sha256.Sum256([]byte(from))
	t.channels[from] = id
	return id
}

func (t *fakeTill) Accept(_ context.Context, from peer.ID, voucher []byte) (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.channels[from]; !ok {
		return 0, payment.ErrNoChannel
	}
	if len(voucher) != 8 {
		return 0, payment.ErrMalformed
	}
	sum := binary.BigEndian.Uint64(voucher)
	grew := sum - min(sum, t.received[from])
	t.received[from] += grew
	return grew, t.broken
}

func (t *fakeTill) Received(_ context.Context, from peer.ID) (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.received[from], nil
}

func (t *fakeTill) Channel(_ context.Context, from peer.ID, id [32]byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c, ok := t.channels[from]; !ok || c != id {
		return payment.ErrNoChannel
	}
	return nil
}

// node is a provider with its database and folder, which can end and begin again.
type node struct {
	t     testing.TB
	cfg   Config
	root  string
	life  int
	clock *clock
	till  *fakeTill
	id    peer.ID
	p     *Provider
	alive bool
}

func newNode(t testing.TB, change func(*Config)) *node {
	t.Helper()
	n := &node{t: t, root: scratch(t), clock: newClock(), till: newTill()}
	n.cfg = Config{Prefix: []byte("prov/"), Now: n.clock.now, Till: n.till, QuotaBytes: 256 << 20, Patience: 10 * time.Second}
	n.cfg.Key, n.id = testKey(t, "provider")
	if change != nil {
		change(&n.cfg)
	}
	n.start()
	t.Cleanup(n.stop)
	return n
}

// scratch is a folder in memory, where syncing costs nothing; for benchmarks it is on the disk.
func scratch(t testing.TB) string {
	t.Helper()
	if _, bench := t.(*testing.B); bench {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "provider-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

func (n *node) path(name string) string {
	return filepath.Join(n.root, strconv.Itoa(n.life), name)
}

func (n *node) start() {
	n.t.Helper()
	n.cfg.DB = openDB(n.t, n.path("db"))
	n.cfg.Dir = n.path("chunks")
	p, err := Open(n.cfg)
	must(n.t, err)
	n.p, n.alive = p, true
}

// stop ends a life as it should end.
func (n *node) stop() {
	if !n.alive {
		return
	}
	n.alive = false
	if err := errors.Join(n.p.Close(), n.cfg.DB.Close()); err != nil {
		n.t.Error(err)
	}
}

// kill ends a life as kill -9 does: what was written to files and committed stays.
func (n *node) kill() {
	n.t.Helper()
	n.alive = false
	n.p.life.Lock() // whoever is in a call finds the steps failing
	n.p.closed = true
	n.p.life.Unlock()
	must(n.t, errors.Join(n.p.table.closeAll(), n.cfg.DB.Close()))
}

func (n *node) restart() { n.stop(); n.start() }

// ask sends one request and returns the refusal or error of its answer.
func (n *node) ask(from peer.ID, r seal.Request, a seal.Answer) error {
	n.t.Helper()
	return n.talk(from, func(s net.Conn) error { return seal.Ask(s, r, a) })
}

func (n *node) talk(from peer.ID, fn func(s net.Conn) error) error {
	n.t.Helper()
	ours, theirs := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- n.p.Serve(context.Background(), from, theirs) }()
	must(n.t, ours.SetDeadline(time.Now().Add(time.Minute)))
	err := fn(ours)
	_ = ours.Close()
	<-served
	return err
}

func (n *node) tend() {
	n.t.Helper()
	must(n.t, n.p.tend(n.t.Context()))
}

// piece is a chunk with its content.
type piece struct {
	chunk      erasure.Chunk
	id         cid.Cid
	descriptor []byte
	bytes      []byte
	blocks     [][]byte
}

// makePiece makes a chunk of random blocks of the given lengths.
func makePiece(t testing.TB, seed uint64, lengths ...int) *piece {
	t.Helper()
	r := rand.NewChaCha8(sha256.Sum256(binary.BigEndian.AppendUint64(nil, seed)))
	p := &piece{}
	for _, n := range lengths {
		b := make([]byte, n)
		_, _ = r.Read(b)
		hash, err := mh.Sum(b, mh.SHA2_256, -1)
		must(t, err)
		p.chunk = append(p.chunk, erasure.Shard{CID: cid.NewCidV1(cid.Raw, hash), Bytes: n})
		p.blocks = append(p.blocks, b)
		p.bytes = append(p.bytes, b...)
	}
	var err error
	p.id, p.descriptor, err = p.chunk.Encode()
	must(t, err)
	return p
}

// link is a writer's side of a link.
type link struct {
	n      *node
	from   peer.ID
	id     seal.LinkID
	piece  *piece
	price  uint64
	expiry time.Time
	key    seal.Key
	sealed []byte
	m      seal.Map
}

func (n *node) newLink(writer string, number byte, pc *piece) *link {
	n.t.Helper()
	_, from := testKey(n.t, writer)
	l := &link{n: n, from: from, piece: pc, expiry: n.clock.now().Add(30 * 24 * time.Hour)}
	l.id = linkID(number)
	l.price = seal.PriceOf(n.cfg.PricePerGiBDay, int64(len(pc.bytes)), l.expiry.Sub(n.clock.now()))
	l.key = seal.KeyFor([]byte("secret of "+writer), n.id, pc.id)
	l.sealed = make([]byte, len(pc.bytes))
	var err error
	l.m, err = l.key.Seal(l.sealed, pc.bytes)
	must(n.t, err)
	return l
}

func linkID(number byte) seal.LinkID {
	sum := sha256.Sum256([]byte{number})
	return seal.LinkID(sum[:16])
}

func (l *link) request() *seal.StoreRequest {
	return &seal.StoreRequest{Link: l.id, Chunk: l.piece.id, Descriptor: l.piece.descriptor, Bytes: int64(len(l.piece.bytes)),
		Price: l.price, Expiry: l.expiry, Now: l.n.clock.now()}
}

func (l *link) agree() (seal.StoreAnswer, error) {
	var a seal.StoreAnswer
	err := l.n.ask(l.from, l.request(), &a)
	return a, err
}

func (l *link) sendMap() (seal.Bitmap, error) {
	var a seal.SegmentsAnswer
	err := l.n.ask(l.from, &seal.Segments{Link: l.id, Key: l.key, Root: l.m.Root(), Map: l.m}, &a)
	return a.Missing, err
}

func (l *link) segment(i int) []byte {
	off := i * seal.SegmentBytes
	return l.sealed[off:min(len(l.sealed), off+seal.SegmentBytes)]
}

func (l *link) send(set seal.Bitmap) (missing seal.Bitmap, err error) {
	err = l.n.talk(l.from, func(s net.Conn) error {
		missing, err = seal.SendData(s, l.id, set, func(i int) ([]byte, error) { return l.segment(i), nil })
		return err
	})
	return missing, err
}

func (l *link) openChannel() error {
	return l.n.ask(l.from, &seal.OpenChannel{Channel: l.n.till.open(l.from)}, &seal.BasicAnswer{})
}

func (l *link) sign() (seal.Pledge, error) {
	var a seal.SignatureAnswer
	err := l.n.ask(l.from, &seal.SignatureRequest{Link: l.id}, &a)
	return a.Pledge, err
}

func (l *link) pay(sum uint64) error {
	return l.n.ask(l.from, &seal.Voucher{Link: l.id, Voucher: fakeVoucher(sum)}, &seal.BasicAnswer{})
}

func (l *link) release() error {
	return l.n.ask(l.from, &seal.Release{Chunk: l.piece.id}, &seal.BasicAnswer{})
}

func (l *link) audit(segments ...uint32) (seal.AuditAnswer, error) {
	var a seal.AuditAnswer
	err := l.n.ask(l.from, &seal.Audit{Chunk: l.piece.id, Segments: segments, Nonce: seal.Nonce{1}}, &a)
	return a, err
}

func (l *link) renew(id seal.LinkID, expiry time.Time, price uint64) (seal.Pledge, error) {
	var a seal.SignatureAnswer
	err := l.n.ask(l.from, &seal.Renew{Link: id, Chunk: l.piece.id, Expiry: expiry, Price: price, Now: l.n.clock.now()}, &a)
	return a.Pledge, err
}

func (l *link) want() seal.Pledge {
	return seal.Pledge{Chunk: l.piece.id, SealedRoot: l.m.Root(), Bytes: int64(len(l.piece.bytes)), Price: l.price,
		Expiry: l.expiry, Writer: l.from, Provider: l.n.id}
}

// store takes a link through all states up to its pledge.
func (l *link) store() (seal.Pledge, error) {
	if _, err := l.agree(); err != nil {
		return seal.Pledge{}, err
	}
	if l.price > 0 {
		if err := l.openChannel(); err != nil {
			return seal.Pledge{}, err
		}
	}
	missing, err := l.sendMap()
	if err != nil {
		return seal.Pledge{}, err
	}
	if missing.Count() > 0 {
		if missing, err = l.send(missing); err != nil {
			return seal.Pledge{}, err
		}
		if missing.Count() > 0 {
			return seal.Pledge{}, errors.New("segments are missing")
		}
	}
	return l.sign()
}

func (l *link) mustStore() seal.Pledge {
	l.n.t.Helper()
	pledge, err := l.store()
	must(l.n.t, err)
	must(l.n.t, pledge.Check(l.want()))
	return pledge
}

// checkSums counts everything anew from the records, and compares with the books and the folder.
func (n *node) checkSums() {
	n.t.Helper()
	fresh := &Provider{cfg: n.p.cfg, books: newBooks(n.cfg.Limits, n.cfg.QuotaBytes)}
	must(n.t, fresh.loadBooks())
	if got, want := n.p.books.sums(), fresh.books.sums(); got != want {
		n.t.Fatalf("books say %+v, records %+v", got, want)
	}
	n.p.books.mu.Lock()
	defer n.p.books.mu.Unlock()
	if len(n.p.books.writers) != len(fresh.books.writers) {
		n.t.Fatalf("books have %d writers, records %d", len(n.p.books.writers), len(fresh.books.writers))
	}
	for id, s := range fresh.books.writers {
		if got := n.p.books.writers[id]; got == nil || *got != *s {
			n.t.Fatalf("books say %+v of a writer, records %+v", got, *s)
		}
	}
	if fresh.tombstones.Load() != n.p.tombstones.Load() {
		n.t.Fatalf("%d tombstones are counted, %d are there", n.p.tombstones.Load(), fresh.tombstones.Load())
	}
	if n.p.books.total.used > n.cfg.QuotaBytes {
		n.t.Fatalf("%d bytes used of a quota of %d", n.p.books.total.used, n.cfg.QuotaBytes)
	}
	files := 0
	must(n.t, n.p.folder.Each(func(string) error { files++; return nil }))
	if files > n.p.books.total.copies { // fewer are there where a crash came between file and record
		n.t.Fatalf("%d files of %d copies", files, n.p.books.total.copies)
	}
}
