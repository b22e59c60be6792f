package test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	mh "github.com/multiformats/go-multihash"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestAnnouncementsWaitForPeers adds to a node that knows nobody: the
// announcement waits, through a restart, and is made when there is a peer.
func TestAnnouncementsWaitForPeers(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	a := s.Start("a")
	tree := s.ManyFiles(10, "tree")
	root := a.Add(tree)
	a.Kill()
	a.Start()
	b, c := s.Start("b"), s.Start("c")
	b.Connect(c)
	a.Connect(c)
	s.Eventually("B finds A", func() bool {
		_, err := b.Run("get", "--force", "--timeout", "3s", root, "-o", s.Path("out"))
		return err == nil
	})
	s.MustSh(`diff -r "$1" "$2"`, tree, s.Path("out"))
}

// TestFetchedContentIsAnnounced takes away who added a tree: who fetched all of
// it is found instead.
func TestFetchedContentIsAnnounced(t *testing.T) {
	t.Parallel()
	d := newDistant(t)
	tree := d.ManyFiles(10, "tree")
	root := d.a.Add(tree)
	d.b.Must("pin", root)
	d.a.Kill()
	e := d.Start("e")
	e.Connect(d.c)
	d.Eventually("E finds B", func() bool {
		_, err := e.Run("get", "--force", "--timeout", "3s", root, "-o", d.Path("out"))
		return err == nil
	})
	d.MustSh(`diff -r "$1" "$2"`, tree, d.Path("out"))
}

// TestRememberedPeers restarts both ends of a connection that was asked for.
func TestRememberedPeers(t *testing.T) {
	t.Parallel()
	s, a, b := near(t)
	connected := func() bool { return b.Figure("peers") == 1 }
	b.Kill()
	b.Start()
	s.Eventually("B dials A after a restart of B", connected)
	a.Kill()
	s.Eventually("B sees A go", func() bool { return !connected() })
	a.Start()
	s.Eventually("B dials A after a restart of A", connected)
}

// TestAnnounceStrategies looks in the DHT for the root and for one leaf of a
// pinned and of an unpinned tree, under each strategy. What was added before
// there was anybody to tell is announced after a kill too. A node that knows no
// more than a leaf's CID reads it.
//
// That nobody is found is seen in the DHT alone: in a swarm this small every
// search comes past the provider itself, which then is a peer like any other.
func TestAnnounceStrategies(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	c := s.Start("c")
	look := newSeeker(t, c)
	seed := uint64(0)
	for _, tt := range []struct {
		strategy       string
		pinned, others bool // leaves that are announced
	}{
		{"roots", false, false},
		{"pinned", true, false},
		{"all", true, true},
	} {
		a := s.Start(tt.strategy, "--announce", tt.strategy)
		var roots, leaves []string
		for _, pin := range []string{"--pin=true", "--pin=false"} {
			seed++
			dir := s.Mkdir(tt.strategy, pin)
			leaf := s.RandomFile(100_000, seed, tt.strategy, pin, "leaf")
			roots, leaves = append(roots, a.Add(dir, pin)), append(leaves, leafOf(t, leaf))
		}
		a.Kill()
		a.Start()
		a.Connect(c)
		for i, announced := range []bool{tt.pinned, tt.others} {
			look.until(s, roots[i], a)
			if announced {
				look.until(s, leaves[i], a)
			}
		}
		announce := func() map[string]any { return a.Status()["announce"].(map[string]any) }
		if tt.pinned { // all that is to be announced is when the sweep has ended
			s.Eventually("the sweep ends", func() bool { return announce()["last_sweep_ended"] != nil })
		}
		for i, announced := range []bool{tt.pinned, tt.others} {
			if found := look.finds(leaves[i], a); found != announced {
				t.Errorf("%s: a leaf is found: %v, want %v", tt.strategy, found, announced)
			}
		}
		if got := announce(); got["strategy"] != tt.strategy || (got["announced"].(float64) > 0) != tt.pinned {
			t.Errorf("%s: status says %v", tt.strategy, got)
		}
		late := s.RandomFile(100_000, 100+seed, tt.strategy, "late")
		lateRoot := a.Add(s.Path(tt.strategy))
		look.until(s, lateRoot, a)
		if lateLeaf := leafOf(t, late); tt.pinned {
			look.until(s, lateLeaf, a)
			e := s.Start("e-" + tt.strategy)
			e.Connect(c)
			out := s.Path("read-" + tt.strategy)
			e.Must("get", lateLeaf, "-o", out)
			s.MustSh(`cmp "$1" "$2"`, late, out)
		}
	}
}

// leafOf is the CID of a file short enough to be one leaf.
func leafOf(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	leaf, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum(data)
	must(t, err)
	return leaf.String()
}

// seeker is a member of the DHT that holds nothing and asks who holds what.
type seeker struct {
	t   *testing.T
	dht *dht.IpfsDHT
}

func newSeeker(t *testing.T, n *swarm.Node) *seeker {
	t.Helper()
	h := newHost(t)
	d, err := dht.New(h, dht.Mode(dht.ModeClient), dht.ProtocolPrefix("/holdfast"), dht.DisableValues())
	must(t, err)
	t.Cleanup(func() { d.Close() })
	dial(t, h, n)
	return &seeker{t: t, dht: d}
}

// finds says whether the DHT names n as a provider.
func (k *seeker) finds(text string, n *swarm.Node) bool {
	k.t.Helper()
	c, err := cid.Decode(text)
	must(k.t, err)
	ctx, cancel := context.WithTimeout(k.t.Context(), 20*time.Second)
	defer cancel()
	want := n.Identity().ID
	for p := range k.dht.FindProvidersAsync(ctx, c, 5) {
		if p.ID.String() == want {
			return true
		}
	}
	return false
}

func (k *seeker) until(s *swarm.Swarm, text string, n *swarm.Node) {
	k.t.Helper()
	s.Eventually(n.Name+" is found with "+text, func() bool { return k.finds(text, n) })
}
