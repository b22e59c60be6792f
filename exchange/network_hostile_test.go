package exchange

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastfs/holdfast/exchange/pb"
)

// hostile is a host that speaks the protocol as it likes.
type hostile struct {
	host.Host
	streams chan network.Stream // opened by the node under test
}

// newHostile connects a hostile host to a node. What the node sends stays unread in its streams.
func newHostile(t *testing.T, n *testNode) *hostile {
	t.Helper()
	h := &hostile{Host: newTestHost(t), streams: make(chan network.Stream, 64)}
	for _, p := range allProtocols {
		h.SetStreamHandler(p, func(s network.Stream) { h.streams <- s })
	}
	if err := h.Connect(t.Context(), n.info()); err != nil {
		t.Fatal(err)
	}
	n.knows(t, h.ID())
	return h
}

func (h *hostile) open(t *testing.T, n *testNode) network.Stream {
	t.Helper()
	s, err := h.NewStream(t.Context(), n.id(), ProtocolBitswap12)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Reset() })
	return s
}

// say sends a message as it should be.
func (h *hostile) say(t *testing.T, s network.Stream, m *message) {
	t.Helper()
	w := bufio.NewWriter(s)
	if err := errors.Join(m.encode(w), w.Flush()); err != nil {
		t.Fatal(err)
	}
}

// hastyNode has short deadlines.
func hastyNode(t *testing.T) *testNode {
	t.Helper()
	return startNode(t, newTestHost(t), NetworkConfig{MessageTimeout: 500 * time.Millisecond, RetryDelay: time.Millisecond}, ServeConfig{})
}

// serves proves that a node still answers an honest peer.
func serves(t *testing.T, n *testNode) {
	t.Helper()
	honest := newTestNode(t)
	honest.dial(t, n)
	b := rawBlockOf(t, 300<<10)
	n.store.add(b)
	// Asked for again as the machine does: a hasty node may run out of time on a busy machine.
	until(t, "an honest peer's block", func() bool {
		honest.net.Send(n.id(), wantAll(WantBlock, b))
		return honest.told.has(func() bool { return honest.told.blocks[b.Cid()] != nil })()
	})
}

func TestHostileMessages(t *testing.T) {
	goroutinesBack(t)
	bad, err := proto.Marshal(&pb.Message{Payload: []*pb.Message_Block{{Prefix: []byte{1, 0x55, 0x12, 4}, Data: []byte("x")}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"garbage":   append([]byte{200, 1}, make([]byte, 200)...),
		"oversized": binary.AppendUvarint(nil, maxFrameBytes+1),
		"endless":   {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"weak hash": append(binary.AppendUvarint(nil, uint64(len(bad))), bad...),
	} {
		t.Run(name, func(t *testing.T) {
			n := newTestNode(t)
			h := newHostile(t, n)
			s := h.open(t, n)
			if _, err := s.Write(raw); err != nil {
				t.Fatal(err)
			}
			until(t, "the misbehaviour", n.told.has(func() bool {
				return len(n.told.bad[h.ID()]) == 1 && errors.Is(n.told.bad[h.ID()][0], errMalformed)
			}))
			until(t, "the reset", func() bool { _, err := s.Write([]byte{0}); return err != nil })
			if n.net.Stats().Malformed != 1 {
				t.Errorf("stats %+v", n.net.Stats())
			}
			serves(t, n)
		})
	}
}

func TestHostileSlowDrip(t *testing.T) {
	goroutinesBack(t)
	n := hastyNode(t)
	h := newHostile(t, n)
	s := h.open(t, n)
	if _, err := s.Write(binary.AppendUvarint(nil, 1<<20)); err != nil {
		t.Fatal(err)
	}
	until(t, "the drip to be cut off", func() bool {
		_, err := s.Write([]byte{1})
		return err != nil
	})
	until(t, "the report", n.told.has(func() bool {
		return len(n.told.errs[h.ID()]) > 0 && errors.Is(n.told.errs[h.ID()][0], errSlow)
	}))
	if len(n.told.bad) > 0 || n.net.Stats().Slow != 1 {
		t.Errorf("a slow peer was taken for one that breaks the protocol: %v", n.told.bad)
	}
	serves(t, n)
}

func TestHostileNeverReads(t *testing.T) {
	goroutinesBack(t)
	n := hastyNode(t)
	h := newHostile(t, n)
	bs := addBlocks(t, n.store, 16, 1<<20)
	s := h.open(t, n)
	h.say(t, s, &message{entries: wantAll(WantBlock, bs...)})
	// Its window fills, the deadline ends it, its wants are forgotten.
	until(t, "the stream to be given up", func() bool {
		n.server.mu.Lock()
		defer n.server.mu.Unlock()
		return n.store.served() > 0 && n.server.inFlight == 0
	})
	serves(t, n)
	// Nor does it answer what we ask; that is for the caller's timeouts.
	n.net.Send(h.ID(), wantAll(WantBlock, rawBlockOf(t, 1)))
	serves(t, n)
}

func TestHostileWantLists(t *testing.T) {
	goroutinesBack(t)
	n := newTestNode(t)
	h := newHostile(t, n)
	s := h.open(t, n)
	for round := range 4 {
		m := &message{}
		for i := range 20_000 {
			m.entries = append(m.entries, Entry{CID: testCID(round*20_000 + i), Kind: WantBlock, SendDontHave: true})
		}
		h.say(t, s, m)
	}
	until(t, "the lists to be read", func() bool { return n.net.Stats().Received.WantBlocks == 80_000 })
	n.server.mu.Lock()
	waiting := len(n.server.waiting)
	n.server.mu.Unlock()
	if waiting > 1024 {
		t.Errorf("%d wants of one peer are kept, at most 1,024 are allowed", waiting)
	}
	serves(t, n)
	if err := h.Network().ClosePeer(n.id()); err != nil {
		t.Fatal(err)
	}
	until(t, "the wants to be forgotten", func() bool { return n.net.Stats().Waiting == 0 })
}

func TestHostileStreams(t *testing.T) {
	goroutinesBack(t)
	n := startNode(t, newTestHost(t), NetworkConfig{StreamsPerPeer: 8}, ServeConfig{})
	h := newHostile(t, n)
	for range 40 {
		if _, err := h.open(t, n).Write([]byte{0}); err != nil && !errors.Is(err, network.ErrReset) {
			t.Fatal(err)
		}
	}
	until(t, "streams to be refused", func() bool { return n.net.Stats().Refused >= 32 })
	serves(t, n)
}

func TestHostileUnaskedBlocksWaitForTheHandler(t *testing.T) {
	goroutinesBack(t)
	told := newRecorder()
	told.gate = make(chan struct{})
	n := startNodeWith(t, newTestHost(t), NetworkConfig{PeerBytes: 4 << 20}, ServeConfig{}, told)
	h := newHostile(t, n)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	block := rawBlockOf(t, 1<<20)
	s := h.open(t, n)
	go func() {
		sent := 0
		for ; ctx.Err() == nil; sent++ {
			if err := s.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
				break
			}
			w := bufio.NewWriter(s)
			m := &message{blocks: []blocks.Block{block}}
			if errors.Join(m.encode(w), w.Flush()) != nil {
				break
			}
		}
		done <- sent
	}()
	// The handler takes nothing, so sending stops: what is in hand and the stream's window is full.
	if sent := <-done; sent > 30 {
		t.Errorf("%d MiB were taken from a peer while nobody takes them from us", sent)
	}
	cancel()
	close(told.gate)
	until(t, "what was in hand", told.has(func() bool { return told.messages > 0 }))
}

// served returns how many blocks were read.
func (s *testStore) served() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gets
}

func TestHostileResetsAreRetried(t *testing.T) {
	goroutinesBack(t)
	n := hastyNode(t)
	h := newHostile(t, n)
	wants := map[int][]blocks.Block{0: {rawBlockOf(t, 1)}, 1: {rawBlockOf(t, 2)}}
	n.net.Send(h.ID(), wantAll(WantBlock, wants[0]...))
	first := <-h.streams
	h.reads(t, first, wants[0][0])
	if err := first.Reset(); err != nil {
		t.Fatal(err)
	}
	// What is written before the reset is known is lost, as with any broken line; so ask until it comes.
	var second network.Stream
	until(t, "another stream", func() bool {
		n.net.Send(h.ID(), wantAll(WantBlock, wants[1]...))
		select {
		case second = <-h.streams:
			return true
		default:
			return false
		}
	})
	h.reads(t, second, wants[1][0])
	// The loss is told, unless the next message has found it out and was sent again by itself.
	n.told.do(func() {
		if errs := n.told.errs[h.ID()]; len(errs) > 1 || len(errs) == 1 && !errors.Is(errs[0], network.ErrReset) {
			t.Errorf("one reset was told as %v", errs)
		}
	})
}

// reads reads one message and checks that it wants a block.
func (h *hostile) reads(t *testing.T, s network.Stream, b blocks.Block) {
	t.Helper()
	f := newFrameReader(s, hang)
	size, err := f.length()
	if err != nil {
		t.Fatal(err)
	}
	frame, err := f.body(size)
	if err != nil {
		t.Fatal(err)
	}
	m, err := decodeAndVerify(frame)
	if err != nil || len(m.entries) != 1 || m.entries[0].CID != b.Cid() {
		t.Errorf("read %+v, %v, want an entry for %s", m, err, b.Cid())
	}
}

// TestListIsToldAnewAfterAFailure: what a peer knew of our want list is replaced when sending goes on.
func TestListIsToldAnewAfterAFailure(t *testing.T) {
	goroutinesBack(t)
	n := hastyNode(t)
	h := newHostile(t, n)
	heard := func(want bool) {
		t.Helper()
		s := <-h.streams
		f := newFrameReader(s, hang)
		length, err := f.length()
		if err != nil {
			t.Fatal(err)
		}
		frame, err := f.body(length)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := decodeFrame(frame); err != nil || d.full != want || len(d.entries) != 1 {
			t.Errorf("told %d entries, all of them: %v, %v", len(d.entries), d.full, err)
		}
	}
	n.net.Send(h.ID(), wantAll(WantBlock, rawBlockOf(t, 1)))
	heard(false)
	// The stream is not read any more, so that the next changes time out.
	var many []Entry
	for i := range 16_000 {
		many = append(many, Entry{CID: testCID(i), Kind: WantBlock})
	}
	n.net.Send(h.ID(), many)
	until(t, "a failure", n.told.has(func() bool { return len(n.told.errs[h.ID()]) > 0 }))
	n.net.Send(h.ID(), wantAll(WantBlock, rawBlockOf(t, 3)))
	heard(true)
}

// TestResetOfAQuietStreamIsNoticed: wants that a peer has thrown away are known to be lost at once, though
// nothing else is sent; a peer that only closes its half has lost nothing.
func TestResetOfAQuietStreamIsNoticed(t *testing.T) {
	goroutinesBack(t)
	n := newTestNode(t)
	h := newHostile(t, n)
	n.net.Send(h.ID(), wantAll(WantBlock, rawBlockOf(t, 1)))
	s := <-h.streams
	if _, err := s.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	n.net.Send(h.ID(), wantAll(WantBlock, rawBlockOf(t, 2)))
	serves(t, n)
	if n.told.has(func() bool { return len(n.told.errs) > 0 })() {
		t.Errorf("a closed half is taken for a failure: %v", n.told.errs)
	}
	other := newHostile(t, n)
	n.net.Send(other.ID(), wantAll(WantBlock, rawBlockOf(t, 1)))
	s = <-other.streams
	if _, err := s.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Reset(); err != nil {
		t.Fatal(err)
	}
	until(t, "the loss to be told", n.told.has(func() bool {
		errs := n.told.errs[other.ID()]
		return len(errs) == 1 && errors.Is(errs[0], network.ErrReset)
	}))
}

// TestBrokenAnswerIsNoticed: an answer that breaks off is known to be lost, though its peer stays.
func TestBrokenAnswerIsNoticed(t *testing.T) {
	goroutinesBack(t)
	n := newTestNode(t)
	h := newHostile(t, n)
	s := h.open(t, n)
	if _, err := s.Write(append(binary.AppendUvarint(nil, 1000), make([]byte, 10)...)); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	until(t, "the loss to be told", n.told.has(func() bool {
		errs := n.told.errs[h.ID()]
		return len(errs) == 1 && errors.Is(errs[0], errCutOff)
	}))
	if len(n.told.bad) > 0 {
		t.Errorf("a broken line was taken for a broken protocol: %v", n.told.bad)
	}
}
