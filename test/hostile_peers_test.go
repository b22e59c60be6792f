package test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-msgio"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// bitswapProtocols are what the hostile peers claim to speak.
var bitswapProtocols = []protocol.ID{"/ipfs/bitswap/1.2.0", "/ipfs/bitswap/1.1.0"}

// hostile is a libp2p host that answers Bitswap as a bad peer would.
type hostile struct {
	host.Host
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	asked  chan struct{} // has room for one: somebody asked something
}

// newHostile runs answer for every stream that is opened to it.
func newHostile(t *testing.T, answer func(h *hostile, s network.Stream)) *hostile {
	t.Helper()
	h := &hostile{Host: newHost(t), asked: make(chan struct{}, 1)}
	h.ctx, h.cancel = context.WithCancel(t.Context())
	for _, p := range bitswapProtocols {
		h.SetStreamHandler(p, func(s network.Stream) {
			h.wg.Add(1)
			defer h.wg.Done()
			defer s.Reset()
			select {
			case h.asked <- struct{}{}:
			default:
			}
			answer(h, s)
		})
	}
	t.Cleanup(h.end)
	return h
}

func (h *hostile) end() {
	h.cancel()
	h.Close()
	h.wg.Wait()
}

// hung accepts and never answers, nor reads.
func hung(h *hostile, s network.Stream) { <-h.ctx.Done() }

// mute reads everything and never answers.
func mute(h *hostile, s network.Stream) {
	eachMessage(s, func(message.BitSwapMessage) {})
}

// liar says it has everything and gives other bytes than were asked for.
func liar(h *hostile, s network.Stream) {
	eachMessage(s, func(m message.BitSwapMessage) {
		reply := message.New(false)
		for _, e := range m.Wantlist() {
			switch {
			case e.Cancel:
			case e.WantType == pb.Message_Wantlist_Have:
				reply.AddHave(e.Cid)
			default:
				wrong, err := e.Cid.Prefix().Sum([]byte("not what " + e.Cid.String() + " names"))
				if err != nil {
					continue
				}
				reply.AddBlock(mustBlock([]byte("not what "+e.Cid.String()+" names"), wrong))
			}
		}
		h.reply(s, reply)
	})
}

// claims says it has everything and never gives a block.
func claims(h *hostile, s network.Stream) {
	eachMessage(s, func(m message.BitSwapMessage) {
		reply := message.New(false)
		for _, e := range m.Wantlist() {
			if !e.Cancel {
				reply.AddHave(e.Cid)
			}
		}
		h.reply(s, reply)
	})
}

// drip begins a long answer and sends a byte of it now and then.
func drip(h *hostile, s network.Stream) {
	eachMessage(s, func(m message.BitSwapMessage) {
		out, err := h.NewStream(h.ctx, s.Conn().RemotePeer(), bitswapProtocols...)
		if err != nil {
			return
		}
		defer out.Reset()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		// The length of a message of 1 MiB, then the tag of a field that long.
		head := []byte{0x80, 0x80, 0x40, 0x12, 0xfc, 0xff, 0x3f}
		for i := 0; ; i++ {
			b := byte(0)
			if i < len(head) {
				b = head[i]
			}
			if _, err := out.Write([]byte{b}); err != nil {
				return
			}
			select {
			case <-h.ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
}

// garbage answers with bytes that are no message.
func garbage(h *hostile, s network.Stream) {
	eachMessage(s, func(message.BitSwapMessage) {
		if out, err := h.NewStream(h.ctx, s.Conn().RemotePeer(), bitswapProtocols...); err == nil {
			out.Write([]byte(strings.Repeat("\x7f\xff garbage", 100)))
			out.Close()
		}
	})
}

// floods sends the messages over and over until the node takes no more.
func (h *hostile) floods(t *testing.T, to *swarm.Node, messages ...message.BitSwapMessage) {
	t.Helper()
	id, err := peer.Decode(to.Identity().ID)
	must(t, err)
	out, err := h.NewStream(h.ctx, id, bitswapProtocols...)
	must(t, err)
	h.wg.Go(func() {
		defer out.Reset()
		for range 50 {
			for _, m := range messages {
				if m.ToNetV1(out) != nil {
					return
				}
			}
		}
		<-h.ctx.Done()
	})
	stop := context.AfterFunc(h.ctx, func() { out.Reset() })
	t.Cleanup(func() { stop() })
}

func eachMessage(s network.Stream, each func(message.BitSwapMessage)) {
	r := msgio.NewVarintReaderSize(s, 4<<20)
	for {
		m, _, err := message.FromMsgReader(r)
		if err != nil {
			return
		}
		each(m)
	}
}

func (h *hostile) reply(s network.Stream, m message.BitSwapMessage) {
	out, err := h.NewStream(h.ctx, s.Conn().RemotePeer(), bitswapProtocols...)
	if err != nil {
		return
	}
	m.ToNetV1(out)
	out.Close()
}

func mustBlock(data []byte, c cid.Cid) blocks.Block {
	b, err := blocks.NewBlockWithCid(data, c)
	if err != nil {
		panic(err)
	}
	return b
}
