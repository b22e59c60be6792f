package test

import (
	"crypto/sha256"
	"io"
	"strings"
	"testing"

	"github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	mh "github.com/multiformats/go-multihash"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/test/swarm"
)

// manyRandom is a tree of small files, no two alike.
func manyRandom(s *swarm.Swarm) string {
	for i := range 160 {
		s.RandomFile(32<<10, uint64(i)+1000, "random", "sub"+itoa(i/40), "file"+itoa(i))
	}
	return s.Path("random")
}

// spoiler says it has a column, and gives as many bytes as were asked for, and wrong ones.
func newSpoiler(t *testing.T, column map[cid.Cid]int) *hostile {
	t.Helper()
	return newHostile(t, func(h *hostile, s network.Stream) {
		eachMessage(s, func(m message.BitSwapMessage) {
			reply := message.New(false)
			for _, e := range m.Wantlist() {
				bytes, has := column[e.Cid]
				switch {
				case e.Cancel:
				case !has:
					reply.AddDontHave(e.Cid)
				case e.WantType == pb.Message_Wantlist_Have:
					reply.AddHave(e.Cid)
				default:
					wrong := make([]byte, bytes)
					copy(wrong, e.Cid.Hash())
					reply.AddBlock(mustBlock(wrong, cid.NewCidV1(cid.Raw, sumOf(wrong))))
				}
			}
			if !reply.Empty() {
				h.reply(s, reply)
			}
		})
	})
}

func sumOf(data []byte) mh.Multihash {
	sum := sha256.Sum256(data)
	out, err := mh.Encode(sum[:], mh.SHA2_256)
	if err != nil {
		panic(err)
	}
	return out
}

// TestColumnsOfWrongBytes has two of six columns served by peers that give other bytes than were asked for: everything
// reads all the same, and they are shut out and named.
func TestColumnsOfWrongBytes(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	c := scatter(t, s, manyRandom(s), 0, 2)
	b, p := c.reader("b"), s.Start("p")
	bad := make(map[string]bool)
	for _, i := range []int{0, 2} {
		column := make(map[cid.Cid]int)
		var some []string
		for _, stripe := range c.stripes {
			if d := stripe.Data; i < len(d) {
				column[d[i].CID] = d[i].Bytes
				if d[i].CID.Type() == cid.Raw && len(some) < 16 {
					some = append(some, d[i].CID.String())
				}
			}
		}
		h := newSpoiler(t, column)
		bad[h.ID().String()] = true
		b.Must("connect", addressOf(t, h))
		p.Must("connect", addressOf(t, h))
		c.refuses(p, some)
	}
	s.MustSh(`diff -r "$1" "$2"`, c.source, b.Mount("b.mnt", c.manifest))
	c.told(b)

	peers := p.Peers()
	for id := range bad {
		contains(t, "why a spoiler is shut out", peers[id].BannedFor, "whose bytes are not theirs")
		contains(t, "the log", p.Log(), id, "shut out")
	}
	c.connect(p)
	p.Must("pin", c.manifest)
	c.told(p)
	p.Must("get", c.root, "-o", s.Path("got"))
	s.MustSh(`diff -r "$1" "$2"`, c.source, s.Path("got"))
	for _, n := range []*swarm.Node{b, p} {
		for id, peer := range n.Peers() {
			if peer.BannedSeconds > 0 && !bad[id] {
				t.Errorf("%s shuts an honest peer out: %+v", n.Name, peer)
			}
		}
	}
}

// refuses asks a node that knows nobody else for blocks which a spoiler has: none comes.
func (c *scattered) refuses(n *swarm.Node, blocks []string) {
	c.t.Helper()
	var asking []*swarm.Process
	for _, b := range blocks {
		asking = append(asking, c.Spawn(n.Command("get", "--timeout", "2s", b, "-o", c.Path("wrong", b))))
	}
	for _, p := range asking {
		if code := p.Wait(swarm.Patience); code != 1 {
			c.t.Errorf("get of wrong bytes ended with code %d", code)
		}
	}
}

// TestForgedManifest has a peer tell of a manifest whose stripes give other bytes than the dataset's: the log says so,
// no wrong byte is read, and the manifest of honest peers is used as soon as they are there.
func TestForgedManifest(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	c := scatter(t, s, manyRandom(s))
	c.kill(c.columnOfRoot(), codeK)
	forger, forged := c.forger()

	b := s.Start("b")
	b.Must("connect", forger.Address())
	mount := s.Spawn(b.Command("mount", "--detach", c.root, s.Mkdir("b.mnt"))) // waits for the root
	s.Eventually("the forged manifest is found out", func() bool { return strings.Contains(b.Log(), "a manifest lies") })
	contains(t, "the log", b.Log(), forged)
	c.connect(b)
	if code := mount.Wait(swarm.Patience); code != 0 {
		t.Fatalf("mount ended with code %d: %s%s", code, mount.Out(), mount.Err())
	}
	s.MustSh(`diff -r "$1" "$2"`, c.source, s.Path("b.mnt"))
	c.told(b)

	d := c.reader("d") // with all of them from the start
	d.Must("connect", forger.Address())
	s.MustSh(`diff -r "$1" "$2"`, c.source, d.Mount("d.mnt", c.root))

	e := c.reader("e") // told by its user
	e.Must("connect", forger.Address())
	s.MustSh(`diff -r "$1" "$2"`, c.source, e.Mount("e.mnt", forged))
	contains(t, "the log", e.Log(), "a manifest lies", forged)
}

// forger is a peer with a manifest of the dataset that names its own blocks beside those that are lost.
func (c *scattered) forger() (h *swarm.Holder, manifest string) {
	c.t.Helper()
	h = newHolder(c.t, c.Mkdir("forger"))
	put := func(shard erasure.Shard, data []byte) { must(c.t, h.Shelf.PutBlock(shard.CID, data)) }
	mw, err := erasure.NewManifestWriter(mustCID(c.t, c.root), codeK, codeM, func(p erasure.Part) error { return h.Shelf.PutBlock(p.CID, p.Data) })
	must(c.t, err)
	noise := swarm.Random(5)
	for _, s := range c.stripes {
		forged := erasure.Stripe{}
		for i, shard := range s.Shards() {
			if i >= len(s.Data) || !c.dead[swarm.ColumnOf(s, codeK, i)] && shard.Bytes > 0 {
				data := make([]byte, shard.Bytes)
				_, err := io.ReadFull(noise, data)
				must(c.t, err)
				shard.CID = cid.NewCidV1(cid.Raw, sumOf(data))
				put(shard, data)
			}
			if i < len(s.Data) {
				forged.Data = append(forged.Data, shard)
			} else {
				forged.Parity = append(forged.Parity, shard)
			}
		}
		must(c.t, mw.Add(forged))
	}
	m, err := mw.Close()
	must(c.t, err)
	h.Tell(mustCID(c.t, c.root), m)
	return h, m.String()
}
