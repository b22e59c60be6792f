package test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
	mh "github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastfs/holdfast/exchange/payment"
	"github.com/holdfastfs/holdfast/exchange/pb"
)

// holdfastProtocol carries prices and payments beside what Bitswap does.
const holdfastProtocol protocol.ID = "/holdfast/exchange/1.0.0"

// floodKind is one way to be a nuisance.
type floodKind struct {
	name     string
	protocol protocol.ID
	attack   func(*flood, host.Host)
	payloads [][]byte
}

func floodKinds(t *testing.T) []floodKind {
	t.Helper()
	head := func(length uint64, rest []byte) []byte { return append(binary.AppendUvarint(nil, length), rest...) }
	junk := make([]byte, 64<<10)
	rand.Read(junk)
	half := framed(t, &pb.Message{Payload: []*pb.Message_Block{{Prefix: rawPrefix(), Data: make([]byte, 16<<10)}}})
	return []floodKind{
		{"giant want lists", bitswapProtocols[0], pour, several(t, wantMessage)},
		{"blocks nobody asked for", bitswapProtocols[0], pour, several(t, blockMessage)},
		{"presences", bitswapProtocols[0], pour, several(t, presenceMessage)},
		{"half messages over many streams", bitswapProtocols[0], crowd, [][]byte{half}},
		{"messages that are too long", bitswapProtocols[0], pour, [][]byte{head(64<<20, junk)}},
		{"no messages at all", bitswapProtocols[0], pour, [][]byte{head(uint64(len(junk)), junk)}},
		{"vouchers", holdfastProtocol, pour, [][]byte{bytes.Join(several(t, voucherMessage(16)), nil)}},
		{"vouchers by the thousand", holdfastProtocol, pour, several(t, voucherMessage(2000))},
	}
}

// several makes some different messages.
func several(t *testing.T, make func(t *testing.T, seed int) *pb.Message) (all [][]byte) {
	t.Helper()
	for seed := range 4 {
		all = append(all, framed(t, make(t, seed)))
	}
	return all
}

// framed is a message as it goes over the wire.
func framed(t *testing.T, m *pb.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	must(t, err)
	return append(binary.AppendUvarint(nil, uint64(len(b))), b...)
}

// nowhere is the CID of a block that exists nowhere.
func nowhere(kind string, seed, i int) []byte {
	sum, err := mh.Sum(fmt.Appendf(nil, "%s %d %d", kind, seed, i), mh.SHA2_256, -1)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.Raw, sum).Bytes()
}

func rawPrefix() []byte {
	return cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.SHA2_256, MhLength: 32}.Bytes()
}

func wantMessage(t *testing.T, seed int) *pb.Message {
	list := &pb.Message_Wantlist{}
	for i := range 20_000 {
		list.Entries = append(list.Entries, &pb.Message_Wantlist_Entry{Block: nowhere("want", seed, i), Priority: int32(i), SendDontHave: true})
	}
	return &pb.Message{Wantlist: list}
}

func presenceMessage(t *testing.T, seed int) *pb.Message {
	m := &pb.Message{}
	for i := range 20_000 {
		m.BlockPresences = append(m.BlockPresences, &pb.Message_BlockPresence{Cid: nowhere("presence", seed, i)})
	}
	return m
}

func blockMessage(t *testing.T, seed int) *pb.Message {
	data := make([]byte, 1<<20)
	rand.Read(data)
	return &pb.Message{Payload: []*pb.Message_Block{{Prefix: rawPrefix(), Data: data}}}
}

// voucherMessage has payments through channels that nobody has opened, half of them not even signed.
func voucherMessage(n int) func(*testing.T, int) *pb.Message {
	return func(t *testing.T, seed int) *pb.Message {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		must(t, err)
		m := &pb.Message{}
		for i := range n {
			v, err := payment.NewVoucher(key, payment.ChannelID{byte(seed), byte(i)}, payment.Amount(i+1), uint64(i+1))
			must(t, err)
			if i%2 == 0 {
				v.Signature[0] ^= 1
			}
			b, err := v.Marshal()
			must(t, err)
			m.Vouchers = append(m.Vouchers, b)
		}
		return m
	}
}
