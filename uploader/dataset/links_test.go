package dataset

import (
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
)

// links returns what a node links to.
func links(t testing.TB, c cid.Cid, raw []byte) (out []cid.Cid) {
	t.Helper()
	if c.Prefix().Codec == cid.Raw {
		return nil
	}
	n, err := merkledag.DecodeProtobuf(raw)
	must(t, err)
	for _, l := range n.Links() {
		out = append(out, l.Cid)
	}
	return out
}
