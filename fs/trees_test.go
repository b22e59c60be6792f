package fs

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// bigBytes is a file of a few leaves and a bit.
const bigBytes = 5*leafBytes + 12345

var someTime = time.Unix(1_234_567_890, 500)

// trees are what children mount. They are the same each time, so that the parent can build them too.
var trees = map[string]func(builder) cid.Cid{
	"mixed": func(b builder) cid.Cid {
		script := []byte("#!/bin/sh\necho ran \"$@\"\n")
		sub := b.dir(map[string]ipld.Node{"deep": b.dir(map[string]ipld.Node{"file": b.file([]byte("deep down\n"))})})
		return b.dir(map[string]ipld.Node{
			"empty": b.file(nil), "small": b.file([]byte("small\n")), "big": b.file(random(bigBytes, 1)),
			"script": b.withMeta(script, 0o755, someTime), "link": b.symlink("small"), "sub": sub, "same": sub,
			"emptydir": b.dir(nil),
		}).Cid()
	},
	"big": func(b builder) cid.Cid {
		return b.dir(map[string]ipld.Node{"big": b.file(random(64*leafBytes, 1))}).Cid()
	},
	"huge": func(b builder) cid.Cid {
		return b.dir(map[string]ipld.Node{"big": b.file(random(512*leafBytes, 1))}).Cid()
	},
	"bare":  func(b builder) cid.Cid { return b.file(random(bigBytes, 1)).Cid() },
	"many":  func(b builder) cid.Cid { return b.numbered(2000, 10<<10).Cid() },
	"files": func(b builder) cid.Cid { return b.numbered(10_000, 10<<10).Cid() },
	"source": func(b builder) cid.Cid {
		top := map[string]ipld.Node{}
		for i := range 16 {
			top[fmt.Sprintf("dir%02d", i)] = b.numbered(20, 3000+i)
		}
		return b.dir(top).Cid()
	},
	"program": func(b builder) cid.Cid {
		program, err := os.ReadFile("/bin/echo")
		b.must(err)
		return b.dir(map[string]ipld.Node{"echo": b.withMeta(program, 0o755, someTime)}).Cid()
	},
	"seek": func(b builder) cid.Cid {
		return b.dir(map[string]ipld.Node{"plain": b.numbered(1000, 10), "hamt": b.numbered(6000, 10)}).Cid()
	},
	"metas": func(b builder) cid.Cid {
		children := map[string]ipld.Node{}
		for i := range 50 {
			children[fmt.Sprintf("f%02d", i)] = b.withMeta([]byte(fmt.Sprint(i)), 0o640, someTime)
		}
		return b.dir(children).Cid()
	},
	"wide":    func(b builder) cid.Cid { return b.repeated(plusEntries + 500).Cid() },
	"million": func(b builder) cid.Cid { return b.repeated(1_000_000).Cid() },
	"bad names": func(b builder) cid.Cid {
		n := b.dir(nil).Copy().(*merkledag.ProtoNode)
		for _, name := range []string{"", "..", "a/b", "fine", "x\x00y"} {
			b.must(n.AddNodeLink(name, b.file([]byte(name))))
		}
		b.must(b.f.Add(context.Background(), n))
		return n.Cid()
	},
	"lie": func(b builder) cid.Cid {
		good := b.dir(map[string]ipld.Node{"liar": b.file(random(1000, 9))}).(*merkledag.ProtoNode)
		n := merkledag.NodeWithData(good.Data())
		b.must(n.SetCidBuilder(good.CidBuilder()))
		link := *good.Links()[0]
		link.Size = 500
		b.must(n.AddRawLink(link.Name, &link))
		b.must(b.f.Add(context.Background(), n))
		return n.Cid()
	},
}

// repeated is a directory of n names for one file.
func (b builder) repeated(n int) ipld.Node {
	file := b.file([]byte("the same\n"))
	children := make(map[string]ipld.Node, n)
	for i := range n {
		children[fmt.Sprintf("name-%07d", i)] = file
	}
	return b.dir(children)
}
