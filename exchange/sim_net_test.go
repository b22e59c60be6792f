package exchange

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// simNet is a network of simulated peers in virtual time. It implements Network and ProviderMap.
type simNet struct {
	mu        sync.Mutex
	ctx       context.Context
	handler   Handler
	peers     map[peer.ID]*simPeer
	providers map[cid.Cid][]peer.ID
	searches  []cid.Cid
	dials     map[peer.ID]int
	protected map[peer.ID]bool
	banned    map[peer.ID]int
	made      int // blocks that nobody asked for
	tasks     sync.WaitGroup
}

// simPeer is a peer and how it behaves. The fields are set before it is connected.
type simPeer struct {
	net *simNet
	id  peer.ID

	has      map[cid.Cid]blocks.Block
	latency  time.Duration // of a round trip
	rate     float64       // bytes a second; 0 as fast as can be
	old      bool          // speaks 1.1: no presences
	hung     bool          // takes everything and says nothing
	promises bool          // hung, but says have to everything
	denies   bool          // says don't-have whatever it has
	corrupts bool          // sends bytes that are not the block's
	spoils   int           // if not 0, every how many-th block it corrupts
	twice    bool          // sends every block twice
	loses    float64       // part of the messages that never arrive
	fickle   bool          // says have, and don't-have when asked for the block
	unasked  bool          // sends a block that nobody asked for with every one that somebody did
	floods   []Presence    // said with every answer: a list that is far too long
	garbles  bool          // answers what can't be read, or is too long
	price    Amount        // for each MiB, rounded up
	tacit    bool          // does not say how long the blocks are that it wants money for
	refuses  int           // dials that fail before one succeeds
	simCredit

	// guarded by net.mu
	connected bool
	stop      context.CancelFunc
	inbox     []simMessage
	wake      chan struct{}
	queue     []blocks.Block // to be sent
	waiting   map[cid.Cid]Entry
	more      chan struct{}
	sent      map[cid.Cid]int
	sentBytes int
	entries   map[EntryKind]int
	turn      int // blocks sent
	most      int // the longest the want list was
	random    *rand.Rand
}

type simMessage struct {
	at      time.Time
	entries []Entry
}

func newSimNet() *simNet {
	return &simNet{
		peers: make(map[peer.ID]*simPeer), providers: make(map[cid.Cid][]peer.ID),
		dials: make(map[peer.ID]int), protected: make(map[peer.ID]bool), banned: make(map[peer.ID]int),
	}
}

// add makes a healthy peer with a round trip of 10 ms that has the blocks given.
func (n *simNet) add(name string, has ...blocks.Block) *simPeer {
	p := &simPeer{
		net: n, id: peer.ID(name), has: make(map[cid.Cid]blocks.Block), latency: 10 * time.Millisecond,
		waiting: make(map[cid.Cid]Entry), sent: make(map[cid.Cid]int), entries: make(map[EntryKind]int),
		wake: make(chan struct{}, 1), more: make(chan struct{}, 1),
		random: rand.New(rand.NewPCG(uint64(len(name)), uint64(name[len(name)-1]))),
	}
	for _, b := range has {
		p.has[b.Cid()] = b
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.peers[p.id] = p
	return p
}

func (n *simNet) Start(ctx context.Context, h Handler) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ctx, n.handler = ctx, h
	return nil
}

func (n *simNet) Send(id peer.ID, entries []Entry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[id]
	if p == nil || !p.connected {
		return
	}
	for _, e := range entries {
		p.entries[e.Kind]++
	}
	if p.random.Float64() < p.loses {
		return
	}
	p.inbox = append(p.inbox, simMessage{time.Now().Add(p.latency), entries})
	poke(p.wake)
}

func (n *simNet) Dial(ctx context.Context, info peer.AddrInfo) error {
	n.mu.Lock()
	p := n.peers[info.ID]
	n.dials[info.ID]++
	failed := p == nil || n.dials[info.ID] <= p.refuses
	n.mu.Unlock()
	if failed {
		return errors.New("connection refused")
	}
	p.connect()
	return nil
}

func (n *simNet) Disconnect(id peer.ID) {
	n.mu.Lock()
	p := n.peers[id]
	n.banned[id]++
	n.mu.Unlock()
	if p != nil {
		p.disconnect()
	}
}

func (n *simNet) Protect(id peer.ID, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.protected[id] = on
}

func (n *simNet) FindProviders(ctx context.Context, c cid.Cid, max int) <-chan peer.AddrInfo {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.searches = append(n.searches, c)
	out := make(chan peer.AddrInfo, max)
	for _, id := range n.providers[c] {
		if len(out) < max {
			out <- peer.AddrInfo{ID: id}
		}
	}
	close(out)
	return out
}

func (n *simNet) Provide(context.Context, cid.Cid) error { return nil }

// connect brings a peer up and reports it.
func (p *simPeer) connect() {
	n := p.net
	n.mu.Lock()
	if p.connected {
		n.mu.Unlock()
		return
	}
	p.connected = true
	ctx, stop := context.WithCancel(n.ctx)
	p.stop = stop
	clear(p.waiting)
	p.inbox, p.queue = nil, nil
	n.mu.Unlock()
	n.handler.PeerConnected(ctx, p.id, !p.old)
	n.tasks.Go(func() { p.listen(ctx) })
	n.tasks.Go(func() { p.speak(ctx) })
}

// disconnect takes a peer down and reports it.
func (p *simPeer) disconnect() {
	n := p.net
	n.mu.Lock()
	was := p.connected
	p.connected = false
	if was {
		p.stop()
	}
	n.mu.Unlock()
	if was {
		n.handler.PeerGone(n.ctx, p.id)
	}
}

// listen takes messages in once they have travelled.
func (p *simPeer) listen(ctx context.Context) {
	for {
		p.net.mu.Lock()
		var next *simMessage
		if len(p.inbox) > 0 {
			next = &p.inbox[0]
		}
		p.net.mu.Unlock()
		if next == nil {
			select {
			case <-p.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		if !pass(ctx, time.Until(next.at)) {
			return
		}
		p.net.mu.Lock()
		p.inbox = p.inbox[1:]
		presences := p.read(next.entries)
		p.net.mu.Unlock()
		if p.garbles {
			p.net.handler.PeerMisbehaved(ctx, p.id, errors.New("length of a block is negative"))
			return
		}
		if presences = append(presences, p.floods...); len(presences) > 0 {
			p.net.handler.Received(ctx, p.id, Incoming{Presences: presences, Account: p.account()})
		}
		poke(p.more)
	}
}

// read keeps the want list and answers what can be answered at once.
func (p *simPeer) read(entries []Entry) (presences []Presence) {
	for _, e := range entries {
		if e.Kind == Cancel {
			delete(p.waiting, e.CID)
			continue
		}
		p.waiting[e.CID] = e
		p.most = max(p.most, len(p.waiting))
		b := p.has[e.CID]
		switch {
		case p.hung || p.garbles:
		case p.promises:
			if e.Kind == WantHave {
				presences = append(presences, p.offers(e.CID, b))
			}
		case b == nil || p.denies:
			if e.SendDontHave && !p.old {
				presences = append(presences, Presence{CID: e.CID, Have: false})
			}
		case e.Kind == WantHave && !p.old:
			presences = append(presences, p.offers(e.CID, b))
		case e.PricePerMiB < p.price: // it was not agreed to
			presences = append(presences, p.offers(e.CID, b))
			delete(p.waiting, e.CID)
		case p.fickle:
			presences = append(presences, Presence{CID: e.CID})
			delete(p.waiting, e.CID)
		default:
			p.queue = append(p.queue, b)
		}
	}
	return presences
}

// account is what a peer says about money.
func (p *simPeer) account() *Account {
	if p.price == 0 || p.tacit || p.credit > 0 {
		return nil
	}
	return &Account{PricePerMiB: p.price}
}

// offers is what a peer says that has a block.
func (p *simPeer) offers(c cid.Cid, b blocks.Block) Presence {
	pr := Presence{CID: c, Have: true}
	if p.price > 0 {
		n := uint64(1000)
		if b != nil {
			n = uint64(len(b.RawData()))
		}
		pr.Price = p.price.share(n, mib)
		if !p.tacit {
			pr.Bytes = n
		}
	}
	return pr
}

// speak sends queued blocks, one after the other, as fast as the peer can.
func (p *simPeer) speak(ctx context.Context) {
	for {
		p.tellAccount(ctx)
		b := p.pick()
		if b == nil {
			select {
			case <-p.more:
				continue
			case <-ctx.Done():
				return
			}
		}
		if p.uplink() > 0 && !pass(ctx, time.Duration(float64(len(b.RawData()))/p.uplink()*float64(time.Second))) {
			return
		}
		if p.lost() {
			continue
		}
		message := Incoming{Blocks: []blocks.Block{b}}
		if p.twice {
			message.Blocks = append(message.Blocks, b)
		}
		if p.unasked {
			message.Blocks = append(message.Blocks, p.unaskedBlock())
		}
		if p.corrupts || p.spoilsNext() {
			message.Blocks = []blocks.Block{blocks.NewBlock(append([]byte("not "), b.RawData()...))}
		}
		p.net.handler.Received(ctx, p.id, message)
	}
}

// spoilsNext says whether the next block is to be corrupt.
func (p *simPeer) spoilsNext() bool {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	p.turn++
	return p.spoils > 0 && p.turn%p.spoils == 0
}

// unaskedBlock makes a block that it never sent before.
func (p *simPeer) unaskedBlock() blocks.Block {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	p.net.made++
	return leaf(1<<40+p.net.made, 10*kib)
}

// up says whether a peer is there.
func (p *simPeer) up() bool {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	return p.connected
}

// uplink is what a peer gives a second.
func (p *simPeer) uplink() float64 {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	return p.rate
}

// lost says whether the next message gets lost.
func (p *simPeer) lost() bool {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	return p.random.Float64() < p.loses
}

// pick takes the next block that is still wanted.
func (p *simPeer) pick() blocks.Block {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	for len(p.queue) > 0 && !p.holds() {
		b := p.queue[0]
		p.queue = p.queue[1:]
		if _, ok := p.waiting[b.Cid()]; ok {
			delete(p.waiting, b.Cid())
			p.sent[b.Cid()]++
			p.sentBytes += len(b.RawData())
			p.owed += p.price.share(uint64(len(b.RawData())), mib)
			return b
		}
	}
	return nil
}

// change changes how a peer behaves while it is connected.
func (p *simPeer) change(f func(*simPeer)) {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	f(p)
}

// gain gives a peer a block. Whoever asked for it before is served.
func (p *simPeer) gain(b blocks.Block) {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	p.has[b.Cid()] = b
}

// listLength is how many entries stand on the peer's want list.
func (p *simPeer) listLength() int {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	return len(p.waiting)
}

// count returns how many entries of a kind were sent to the peer.
func (p *simPeer) count(k EntryKind) int {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	return p.entries[k]
}

// pass waits, and says whether ctx lasted as long.
func pass(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
