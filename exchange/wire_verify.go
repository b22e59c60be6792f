package exchange

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// hashHelpers lends cores to messages with several blocks: whoever gets a token may hash on one
// core more, so that all messages together never use more than there are.
var hashHelpers = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1))

// parallelHashBytes is the least a message has to hold for a second core to be worth waking.
const parallelHashBytes = 256 << 10

// verify computes the CID of every raw block and fills d.blocks. It reports whether a block points
// into the frame, which then must not be used again. Of a block that is too long it is as if the peer
// did not have it.
//
// A block that makes up at least half of the frame's memory keeps it; a smaller one is copied out,
// so that a cached block never holds more than twice its own length.
func (d *decoded) verify(frame []byte) (keepsFrame bool, err error) {
	for _, r := range d.long {
		c, err := sumBlock(r.prefix, r.data)
		if err != nil {
			return false, malformed("block of %d bytes: %v", len(r.data), err)
		}
		d.presences = append(d.presences, Presence{CID: c})
	}
	if len(d.raw) == 0 {
		return false, nil
	}
	total := 0
	for i, r := range d.raw {
		total += len(r.data)
		if 2*len(r.data) >= cap(frame) {
			keepsFrame = true
		} else {
			d.raw[i].data = bytes.Clone(r.data)
		}
	}
	d.blocks = make([]blocks.Block, len(d.raw))
	h := hashing{raw: d.raw, out: d.blocks}
	h.run(total)
	return keepsFrame, h.err
}

// hashing is one message's blocks being hashed on one core or more.
type hashing struct {
	raw  []rawBlock
	out  []blocks.Block
	next atomic.Int64

	once sync.Once
	err  error
}

func (h *hashing) run(total int) {
	var helpers sync.WaitGroup
	for range len(h.raw) - 1 {
		if total < parallelHashBytes || !tryHelper() {
			break
		}
		helpers.Go(func() {
			defer func() { <-hashHelpers }()
			h.work()
		})
	}
	h.work()
	helpers.Wait()
}

func tryHelper() bool {
	select {
	case hashHelpers <- struct{}{}:
		return true
	default:
		return false
	}
}

// work hashes blocks until none is left.
func (h *hashing) work() {
	for {
		i := int(h.next.Add(1)) - 1
		if i >= len(h.raw) {
			return
		}
		c, err := sumBlock(h.raw[i].prefix, h.raw[i].data)
		if err == nil {
			h.out[i], err = blocks.NewBlockWithCid(h.raw[i].data, c)
		}
		if err != nil {
			h.once.Do(func() { h.err = malformed("block %d: %v", i, err) })
			return
		}
	}
}

// sumBlock computes the CID that a block of this prefix has.
func sumBlock(p cid.Prefix, data []byte) (cid.Cid, error) {
	if p.MhType != mh.SHA2_256 || p.MhLength != sha256Bytes {
		c, err := p.Sum(data)
		if err != nil {
			return cid.Undef, fmt.Errorf("hash block: %w", err)
		}
		return c, nil
	}
	// The usual hash without the allocations of the general way.
	var digest [2 + sha256Bytes]byte
	digest[0], digest[1] = mh.SHA2_256, sha256Bytes
	sum := sha256.Sum256(data)
	copy(digest[2:], sum[:])
	if p.Version == 0 {
		return cid.NewCidV0(digest[:]), nil
	}
	return cid.NewCidV1(p.Codec, digest[:]), nil
}
