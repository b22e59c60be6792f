package exchange

import (
	"errors"
	"fmt"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/libp2p/go-libp2p/core/peer"
)

// badPeers are the ways in which a peer can be of no use. Each is met beside a healthy peer.
var badPeers = map[string]func(*simPeer){
	"hung":              func(p *simPeer) { p.hung = true },
	"promises":          func(p *simPeer) { p.promises = true },
	"denies":            func(p *simPeer) { p.denies = true },
	"corrupts":          func(p *simPeer) { p.corrupts = true },
	"drips":             func(p *simPeer) { p.rate = 1000 },
	"sends twice":       func(p *simPeer) { p.twice = true },
	"far away":          func(p *simPeer) { p.latency = 2 * time.Second },
	"hung, speaks 1.1":  func(p *simPeer) { p.hung, p.old = true, true },
	"loses every fifth": func(p *simPeer) { p.loses = 0.2 },
}

func TestABadPeerDoesNotHoldADownloadUp(t *testing.T) {
	for name, spoil := range badPeers {
		t.Run(name, func(t *testing.T) {
			simulate(t, Limits{}, func(s *sim) {
				root, all := tree(500, 50*kib, 100)
				good, bad := s.net.add("good", all...), s.net.add("bad", all...)
				good.rate = 50 * mib
				spoil(bad)
				bad.connect()
				good.connect()
				if took := s.download(root, time.Minute); took > 10*time.Second {
					t.Errorf("took %v; %+v", took, s.Stats())
				}
				if st := s.Stats(); st.Bytes+st.Unwanted < 25*1000*1000 {
					t.Errorf("received %d bytes", st.Bytes)
				}
			})
		})
	}
}

func TestABadPeerAloneIsEnoughIfItDelivers(t *testing.T) {
	for name, spoil := range map[string]func(*simPeer){
		"drips":            func(p *simPeer) { p.rate = 100 * kib },
		"far away":         func(p *simPeer) { p.latency = 3 * time.Second },
		"speaks 1.1":       func(p *simPeer) { p.old = true },
		"sends twice":      func(p *simPeer) { p.twice = true },
		"loses every 20th": func(p *simPeer) { p.loses = 0.05 },
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, Limits{}, func(s *sim) {
				root, all := tree(40, 50*kib, 10)
				p := s.net.add("only", all...)
				spoil(p)
				p.connect()
				s.download(root, 5*time.Minute)
				if n := s.sentTwice(); n > 5 && p.loses == 0 {
					t.Errorf("%d blocks were sent again; %+v", n, s.Stats())
				}
			})
		})
	}
}

func TestCorruptPeerIsShutOut(t *testing.T) {
	simulate(t, Limits{UnaskedBytes: mib / 2}, func(s *sim) {
		root, all := tree(100, 300*kib, 100)
		bad, good := s.net.add("bad", all...), s.net.add("good", all...)
		bad.corrupts, good.rate = true, 2*mib
		bad.connect()
		good.connect()
		s.download(root, time.Minute)
		if st := s.Stats(); st.Unasked < 2 || st.Bans != 1 || s.net.banned["bad"] == 0 {
			t.Errorf("%+v", st)
		}
		bad.connect()
		s.after(time.Second)
		if s.net.banned["bad"] < 2 {
			t.Error("came back during the ban")
		}
		s.after(2 * time.Hour)
		bad.change(func(p *simPeer) { p.corrupts = false })
		bad.connect()
		if st := s.Stats(); st.Peers != 2 {
			t.Errorf("%d peers after the ban", st.Peers)
		}
	})
}

func TestBrokenProtocolIsShutOut(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		s.net.add("bad").connect()
		s.net.handler.PeerMisbehaved(s.ctx, "bad", errors.New("nonsense"))
		s.after(time.Second)
		if ps := s.Peers(); len(ps) != 1 || ps[0].Banned != s.limits.Ban-time.Second || s.net.banned["bad"] != 1 || ps[0].BanReason != "nonsense" {
			t.Errorf("%+v", ps)
		}
	})
}

func TestPeersShareInProportion(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		root, all := tree(2000, 100*kib, 1000)
		rates := []float64{20 * mib, 10 * mib, 5 * mib, 5 * mib, 2 * mib}
		total := 0.0
		for i, r := range rates {
			p := s.net.add(fmt.Sprint("p", i), all...)
			p.rate = r
			p.connect()
			total += r
		}
		took := s.download(root, time.Minute)
		ideal := time.Duration(2000 * 100 * kib / total * float64(time.Second))
		t.Logf("took %v of %v; %+v", took, ideal, s.Stats())
		if took > 2*ideal {
			t.Errorf("took %v, at best %v", took, ideal)
		}
		for i, r := range rates {
			p := s.net.peers[peer.ID(fmt.Sprint("p", i))]
			t.Logf("%s sent %d of %.0f", p.id, p.sentBytes, 2000*100*kib*r/total)
		}
		if n := s.sentTwice(); n > 2000/10 {
			t.Errorf("%d blocks were sent twice", n)
		}
	})
}

func TestFiftyMixedPeers(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		root, all := tree(1000, 20*kib, 100)
		for i := range 50 {
			var part []blocks.Block
			for j, b := range all {
				if (j+i)%5 < 2 {
					part = append(part, b)
				}
			}
			p := s.net.add(fmt.Sprint("p", i), part...)
			p.rate = float64(1+i%7) * mib
			p.latency = time.Duration(5+i) * time.Millisecond
			switch i % 10 {
			case 3:
				p.hung = true
			case 5:
				p.denies = true
			case 7:
				p.promises = true
			case 9:
				p.old = true
			}
			p.connect()
		}
		took := s.download(root, time.Minute)
		st := s.Stats()
		t.Logf("took %v; sent twice %d; %+v", took, s.sentTwice(), st)
		if took > 20*time.Second {
			t.Errorf("took %v", took)
		}
		for _, p := range s.net.peers {
			if p.most > 1024 {
				t.Errorf("%s had a list of %d", p.id, p.most)
			}
		}
	})
}

func TestChurn(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		root, all := tree(3000, 20*kib, 100)
		a, b := s.net.add("a", all...), s.net.add("b", all...)
		a.rate, b.rate = 4*mib, 4*mib
		a.connect()
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := 0; pass(s.ctx, 700*time.Millisecond); i++ {
				select {
				case <-stop:
					return
				default:
				}
				up, down := a, b
				if i%2 == 0 {
					up, down = b, a
				}
				down.disconnect()
				up.connect()
			}
		}()
		took := s.download(root, 3*time.Minute)
		close(stop)
		<-done
		t.Logf("took %v; sent twice %d; %+v", took, s.sentTwice(), s.Stats())
	})
}

func TestAPeerThatAppearsRevivesAtOnce(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		b := leaf(1, 1000)
		s.net.add("other").connect()
		late := s.net.add("late", b)
		got := make(chan time.Duration, 1)
		go func() { got <- s.mustFetch(Want{CID: b.Cid()}, time.Hour) }()
		s.after(17 * time.Minute)
		late.connect()
		if took := <-got - 17*time.Minute; took > 100*time.Millisecond {
			t.Errorf("took %v after the peer appeared", took)
		}
	})
}

func TestAPeerThatGainsTheBlockIsFound(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		b := leaf(1, 1000)
		p := s.net.add("p")
		p.connect()
		got := make(chan time.Duration, 1)
		go func() { got <- s.mustFetch(Want{CID: b.Cid()}, time.Hour) }()
		s.after(5 * time.Minute)
		p.gain(b)
		if took := <-got - 5*time.Minute; took > 40*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestAPeerThatComesBackIsDialedAgain(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		root, all := tree(20, 1000, 20)
		a := s.net.add("A", all...)
		s.net.providers[root.Cid()] = []peer.ID{"A"}
		s.mustFetch(Want{CID: all[0].Cid(), Dataset: root.Cid()}, 5*time.Second)
		a.change(func(p *simPeer) { p.refuses = 1 << 30 })
		a.disconnect()
		if _, err := s.fetch(Want{CID: all[1].Cid(), Dataset: root.Cid()}, 10*time.Second); !errors.Is(err, ErrTimeout) {
			t.Errorf("got %v", err)
		}
		a.change(func(p *simPeer) { p.refuses = 0 })
		s.mustFetch(Want{CID: all[1].Cid(), Dataset: root.Cid()}, 5*time.Second)
	})
}

func TestPromisesDoNotLockOthersOut(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		root, all := tree(200, 10*kib, 20)
		for i := range 40 {
			p := s.net.add(fmt.Sprint("promising", i))
			p.promises = true
			p.connect()
		}
		s.net.add("good", all...).connect()
		if took := s.download(root, 5*time.Minute); took > 30*time.Second {
			t.Errorf("took %v; %+v", took, s.Stats())
		}
	})
}

func TestLostMessagesAreSentAgain(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		b := leaf(1, 1000)
		p := s.net.add("p", b)
		p.loses = 1
		p.connect()
		got := make(chan time.Duration, 1)
		go func() { got <- s.mustFetch(Want{CID: b.Cid()}, time.Hour) }()
		s.after(time.Second)
		p.change(func(p *simPeer) { p.loses = 0 })
		if took := <-got; took > 35*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestFailedSendIsMadeGood(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		b := leaf(1, 1000)
		p := s.net.add("p", b)
		p.loses = 1
		p.connect()
		got := make(chan time.Duration, 1)
		go func() { got <- s.mustFetch(Want{CID: b.Cid()}, time.Hour) }()
		s.after(100 * time.Millisecond)
		p.change(func(p *simPeer) { p.loses = 0 })
		s.net.handler.SendFailed(s.ctx, "p", errors.New("stream reset"))
		if took := <-got; took > time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// TestWhoSpoilsSomeBlocksIsShutOut: every tenth block of one of three peers is not what it is said to be.
func TestWhoSpoilsSomeBlocksIsShutOut(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		root, all := tree(1000, 100*kib, 1000)
		for i := range 3 {
			p := s.net.add(fmt.Sprint("p", i), all...)
			if p.rate = 5 * mib; i == 0 {
				p.spoils = 10
			}
			p.connect()
		}
		s.download(root, time.Minute)
		for _, p := range s.Peers() {
			if shut := p.Banned > 0; shut != (p.ID == "p0") || shut != (p.BanReason == errUnasked.Error()) {
				t.Errorf("%+v", p)
			}
		}
		if st := s.Stats(); st.Bans != 1 || s.net.banned["p0"] != 1 {
			t.Errorf("%+v", st)
		}
	})
}
