package exchange

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	bspb "github.com/ipfs/boxo/bitswap/message/pb"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastfs/holdfast/exchange/pb"
)

// testBlock returns a block of n random bytes under a CID of the given kind.
func testBlock(t testing.TB, n int, p cid.Prefix) blocks.Block {
	t.Helper()
	data := make([]byte, n)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	c, err := p.Sum(data)
	if err != nil {
		t.Fatal(err)
	}
	b, err := blocks.NewBlockWithCid(data, c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// testPrefixes are the kinds of CID that blocks arrive under.
var testPrefixes = map[string]cid.Prefix{
	"v0":      prefixV0,
	"raw":     {Version: 1, Codec: cid.Raw, MhType: mh.SHA2_256, MhLength: 32},
	"dag-pb":  {Version: 1, Codec: cid.DagProtobuf, MhType: mh.SHA2_256, MhLength: 32},
	"blake3":  {Version: 1, Codec: cid.Raw, MhType: mh.BLAKE3, MhLength: 32},
	"blake2b": {Version: 1, Codec: cid.DagCBOR, MhType: mh.BLAKE2B_MIN + 31, MhLength: 32},
	"sha512":  {Version: 1, Codec: cid.Raw, MhType: mh.SHA2_512, MhLength: 64},
	"cut":     {Version: 1, Codec: cid.Raw, MhType: mh.SHA2_256, MhLength: 20},
}

func rawBlockOf(t testing.TB, n int) blocks.Block { return testBlock(t, n, testPrefixes["raw"]) }

// fullMessage has one of everything.
func fullMessage(t testing.TB) *message { return messageOf(t, 40_000) }

// messageOf has one of everything, in blocks that grow by step.
func messageOf(t testing.TB, step int) *message {
	m := &message{full: true, pending: 77, vouchers: [][]byte{{1, 2, 3}, bytes.Repeat([]byte{7}, maxVoucherBytes)},
		roots:     []cid.Cid{testBlock(t, 3, prefixV0).Cid()},
		manifests: []known{{testBlock(t, 3, prefixV0).Cid(), []cid.Cid{testBlock(t, 4, prefixV0).Cid(), testBlock(t, 5, prefixV0).Cid()}}, {root: testBlock(t, 6, prefixV0).Cid()}},
		account:   &Account{PricePerMiB: 1 << 40, CreditBytes: 8 << 20, Owed: 5, Suspended: true}}
	for i, name := range []string{"v0", "raw", "dag-pb", "blake3", "blake2b", "sha512", "cut"} {
		p := testPrefixes[name]
		m.blocks = append(m.blocks, testBlock(t, 1+i*step, p))
		m.presences = append(m.presences,
			Presence{CID: testBlock(t, 10, p).Cid(), Have: true, Price: Amount(i * i * 1000), Bytes: uint64(i)}, Presence{CID: testBlock(t, 10, p).Cid()})
		m.entries = append(m.entries,
			Entry{CID: testBlock(t, 10, p).Cid(), Kind: WantHave, Priority: int32(i) - 3, SendDontHave: i%2 == 0},
			Entry{CID: testBlock(t, 10, p).Cid(), Kind: WantBlock, Priority: 1 << 30, SendDontHave: i%2 == 1, PricePerMiB: Amount(i) << 40},
			Entry{CID: testBlock(t, 10, p).Cid(), Kind: Cancel})
	}
	return m
}

// encoded returns a message as it stands on the wire.
func encoded(t testing.TB, m *message) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := bufio.NewWriter(&buf)
	if err := errors.Join(m.encode(w), w.Flush()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// bare cuts the length off one encoded message.
func bare(t testing.TB, b []byte) []byte {
	t.Helper()
	n, size := binary.Uvarint(b)
	if size <= 0 || int(n) != len(b)-size {
		t.Fatalf("length says %d, message has %d bytes", n, len(b)-size)
	}
	return b[size:]
}

func decodeAndVerify(frame []byte) (*message, error) {
	d, err := decodeFrame(frame)
	if err != nil {
		return nil, err
	}
	if _, err := d.verify(frame); err != nil {
		return nil, err
	}
	return &d.message, nil
}

func sameMessage(t *testing.T, got, want *message) {
	t.Helper()
	if got.full != want.full || got.pending != want.pending {
		t.Errorf("full %v, pending %d, want %v, %d", got.full, got.pending, want.full, want.pending)
	}
	if fmt.Sprint(got.entries) != fmt.Sprint(want.entries) {
		t.Errorf("entries %v\nwant    %v", got.entries, want.entries)
	}
	if fmt.Sprint(got.presences) != fmt.Sprint(want.presences) {
		t.Errorf("presences %v\nwant      %v", got.presences, want.presences)
	}
	if fmt.Sprint(got.vouchers) != fmt.Sprint(want.vouchers) || !reflect.DeepEqual(got.account, want.account) {
		t.Errorf("vouchers %v, account %+v\nwant     %v, %+v", got.vouchers, got.account, want.vouchers, want.account)
	}
	if fmt.Sprint(got.roots, got.manifests) != fmt.Sprint(want.roots, want.manifests) {
		t.Errorf("roots and manifests %v, %v\nwant                %v, %v", got.roots, got.manifests, want.roots, want.manifests)
	}
	if len(got.blocks) != len(want.blocks) {
		t.Fatalf("%d blocks, want %d", len(got.blocks), len(want.blocks))
	}
	for i, b := range got.blocks {
		if b.Cid() != want.blocks[i].Cid() || !bytes.Equal(b.RawData(), want.blocks[i].RawData()) {
			t.Errorf("block %d is %s, want %s", i, b.Cid(), want.blocks[i].Cid())
		}
	}
}

func TestMessageComesBack(t *testing.T) {
	for name, m := range map[string]*message{
		"everything": fullMessage(t),
		"nothing":    {},
		"one block":  {blocks: []blocks.Block{rawBlockOf(t, 1<<20)}},
		"empty data": {blocks: []blocks.Block{rawBlockOf(t, 0)}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeAndVerify(bare(t, encoded(t, m)))
			if err != nil {
				t.Fatal(err)
			}
			sameMessage(t, got, m)
		})
	}
}

func TestMessageEqualsGenerated(t *testing.T) {
	m := fullMessage(t)
	ours := bare(t, encoded(t, m))
	var g pb.Message
	if err := proto.Unmarshal(ours, &g); err != nil {
		t.Fatal(err)
	}
	if len(g.Payload) != len(m.blocks) || len(g.Wantlist.Entries) != len(m.entries) || len(g.BlockPresences) != len(m.presences) {
		t.Fatalf("generated code reads %d blocks, %d entries, %d presences", len(g.Payload), len(g.Wantlist.Entries), len(g.BlockPresences))
	}
	theirs, err := proto.Marshal(&g)
	if err != nil {
		t.Fatal(err)
	}
	if len(theirs) != len(ours) {
		t.Errorf("ours has %d bytes, generated %d", len(ours), len(theirs))
	}
	got, err := decodeAndVerify(theirs)
	if err != nil {
		t.Fatal(err)
	}
	sameMessage(t, got, m)
}

// TestPlainMessageSaysNothingOfMoney: peers of another make get what Bitswap has.
func TestPlainMessageSaysNothingOfMoney(t *testing.T) {
	m := fullMessage(t)
	got := m.plain()
	if got.account != nil || got.vouchers != nil || len(got.presences) != len(m.presences) || len(got.blocks) != len(m.blocks) {
		t.Errorf("account %v, %d vouchers, %d presences", got.account, len(got.vouchers), len(got.presences))
	}
	for i, p := range got.presences {
		if p.Price != 0 || p.Bytes != 0 || p.CID != m.presences[i].CID || p.Have != m.presences[i].Have {
			t.Errorf("presence %+v of %+v", p, m.presences[i])
		}
	}
	for i, e := range got.entries {
		if e.PricePerMiB != 0 || e.CID != m.entries[i].CID || e.Kind != m.entries[i].Kind {
			t.Errorf("entry %+v of %+v", e, m.entries[i])
		}
	}
	if m.presences[len(m.presences)-2].Price == 0 {
		t.Error("the message itself has changed")
	}
}

func TestMessageReadByBoxo(t *testing.T) {
	m := fullMessage(t)
	got, _, err := bsmsg.FromNet(bytes.NewReader(encoded(t, m)))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Blocks()) != len(m.blocks) || len(got.Wantlist()) != len(m.entries) || !got.Full() || got.PendingBytes() != m.pending {
		t.Fatalf("boxo reads %d blocks, %d entries, full %v", len(got.Blocks()), len(got.Wantlist()), got.Full())
	}
	have := make(map[cid.Cid]bool)
	for _, b := range got.Blocks() {
		have[b.Cid()] = true
	}
	for _, b := range m.blocks {
		if !have[b.Cid()] {
			t.Errorf("boxo misses block %s", b.Cid())
		}
	}
	if len(got.Haves()) != 7 || len(got.DontHaves()) != 7 {
		t.Errorf("boxo reads %d haves and %d dont-haves, want 7 each", len(got.Haves()), len(got.DontHaves()))
	}
	kinds := make(map[cid.Cid]bsmsg.Entry)
	for _, e := range got.Wantlist() {
		kinds[e.Cid] = e
	}
	for _, e := range m.entries {
		b := kinds[e.CID]
		if b.Cancel != (e.Kind == Cancel) || b.Priority != e.Priority || b.SendDontHave != e.SendDontHave ||
			(b.WantType == bspb.Message_Wantlist_Have) != (e.Kind == WantHave) {
			t.Errorf("boxo reads %+v, want %+v", b, e)
		}
	}
}

func TestMessageOfBoxo(t *testing.T) {
	m := fullMessage(t)
	out := bsmsg.New(true)
	for _, e := range m.entries {
		switch e.Kind {
		case Cancel:
			out.Cancel(e.CID)
		case WantHave:
			out.AddEntry(e.CID, e.Priority, bspb.Message_Wantlist_Have, e.SendDontHave)
		case WantBlock:
			out.AddEntry(e.CID, e.Priority, bspb.Message_Wantlist_Block, e.SendDontHave)
		}
	}
	for _, b := range m.blocks {
		out.AddBlock(b)
	}
	for _, p := range m.presences {
		if p.Have {
			out.AddHave(p.CID)
		} else {
			out.AddDontHave(p.CID)
		}
	}
	var v1, v0 bytes.Buffer
	if err := errors.Join(out.ToNetV1(&v1), out.ToNetV0(&v0)); err != nil {
		t.Fatal(err)
	}
	got, err := decodeAndVerify(bare(t, v1.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.blocks) != len(m.blocks) || len(got.entries) != len(m.entries) || len(got.presences) != len(m.presences) {
		t.Errorf("read %d blocks, %d entries, %d presences of boxo", len(got.blocks), len(got.entries), len(got.presences))
	}
	want := make(map[cid.Cid]Entry)
	for _, e := range m.plain().entries {
		want[e.CID] = e
	}
	for _, e := range got.entries {
		if e != want[e.CID] {
			t.Errorf("entry %+v, want %+v", e, want[e.CID])
		}
	}
	// Version 1.0 knows one kind of CID alone.
	old, err := decodeAndVerify(bare(t, v0.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range old.blocks {
		if b.Cid().Version() != 0 {
			t.Errorf("block of version 1.0 has cid %s", b.Cid())
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	long := &pb.Message{Wantlist: &pb.Message_Wantlist{}}
	for range maxWireEntries + 1 {
		long.Wantlist.Entries = append(long.Wantlist.Entries, &pb.Message_Wantlist_Entry{Block: []byte{1, 0x55, 0, 0}})
	}
	many := &pb.Message{}
	for range maxPresences + 1 {
		many.BlockPresences = append(many.BlockPresences, &pb.Message_BlockPresence{Cid: []byte{1, 0x55, 0, 0}})
	}
	block := func(prefix []byte, data int) *pb.Message {
		return &pb.Message{Payload: []*pb.Message_Block{{Prefix: prefix, Data: make([]byte, data)}}}
	}
	for name, m := range map[string]*pb.Message{
		"too many entries":   long,
		"too many presences": many,
		"too many vouchers":  {Vouchers: make([][]byte, maxVouchers+1)},
		"too many roots":     {ManifestsOf: slices.Repeat([][]byte{{1, 0x55, 0, 0}}, maxManifestRoots+1)},
		"too many manifests": {Manifests: []*pb.Message_Manifests{{Root: []byte{1, 0x55, 0, 0}, Manifests: slices.Repeat([][]byte{{1, 0x55, 0, 0}}, maxManifestsOfRoot+1)}}},
		"manifests of many":  {Manifests: slices.Repeat([]*pb.Message_Manifests{{Root: []byte{1, 0x55, 0, 0}}}, maxManifestRoots+1)},
		"manifests of none":  {Manifests: []*pb.Message_Manifests{{}}},
		"root of garbage":    {ManifestsOf: [][]byte{{9}}},
		"empty voucher":      {Vouchers: [][]byte{{}}},
		"voucher too long":   {Vouchers: [][]byte{make([]byte, maxVoucherBytes+1)}},
		"entry without cid":  {Wantlist: &pb.Message_Wantlist{Entries: []*pb.Message_Wantlist_Entry{{}}}},
		"cid of garbage":     {BlockPresences: []*pb.Message_BlockPresence{{Cid: []byte("not a cid")}}},
		"cid too long":       {BlockPresences: []*pb.Message_BlockPresence{{Cid: append([]byte{1, 0x55, 0, 0x80, 2}, make([]byte, 256)...)}}},
		"no prefix":          block(nil, 1),
		"prefix and more":    block([]byte{1, 0x55, mh.SHA2_256, 32, 0}, 1),
		"identity":           block([]byte{1, 0x55, mh.IDENTITY, 32}, 32),
		"md5":                block([]byte{1, 0x55, 0xd5, 1, 16}, 1),
		"sha1":               block([]byte{1, 0x55, mh.SHA1, 20}, 1),
		"short digest":       block([]byte{1, 0x55, mh.SHA2_256, 8}, 1),
		"digest too long":    block([]byte{1, 0x55, mh.SHA2_256, 64}, 1),
		"version 7":          block([]byte{7, 0x55, mh.SHA2_256, 32}, 1),
		"version 0 of blake": block([]byte{0, 0x70, mh.BLAKE3, 32}, 1),
	} {
		t.Run(name, func(t *testing.T) {
			b, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := decodeAndVerify(b); !errors.Is(err, errMalformed) {
				t.Errorf("decoded with %v, want %v", err, errMalformed)
			}
		})
	}
}

// TestBlockTooLongIsNotThere: a peer that gives what was asked for breaks no protocol.
func TestBlockTooLongIsNotThere(t *testing.T) {
	data := make([]byte, maxBlockBytes+1)
	c, err := testPrefixes["raw"].Sum(data)
	if err != nil {
		t.Fatal(err)
	}
	long := &pb.Message_Block{Prefix: []byte{1, 0x55, mh.SHA2_256, 32}, Data: data}
	b, err := proto.Marshal(&pb.Message{Payload: []*pb.Message_Block{long, {Prefix: long.Prefix, Data: data[1:]}}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := decodeAndVerify(b)
	if err != nil || len(d.blocks) != 1 || len(d.presences) != 1 || d.presences[0].Have || !d.presences[0].CID.Equals(c) {
		t.Errorf("decoded %d blocks, %v, %v", len(d.blocks), d.presences, err)
	}
}

func TestFrameIsKeptByLargeBlocksOnly(t *testing.T) {
	for _, c := range []struct {
		name  string
		sizes []int
		keeps []bool
	}{
		{"one large", []int{1 << 20}, []bool{true}},
		{"one large, one small", []int{1 << 20, 10 << 10}, []bool{true, false}},
		{"many small", []int{10 << 10, 10 << 10, 10 << 10, 10 << 10}, []bool{false, false, false, false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &message{}
			for _, n := range c.sizes {
				m.blocks = append(m.blocks, rawBlockOf(t, n))
			}
			frame := bytes.Clone(bare(t, encoded(t, m)))
			d, err := decodeFrame(frame)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.verify(frame); err != nil {
				t.Fatal(err)
			}
			clear(frame)
			for i, b := range d.blocks {
				shares := !bytes.Equal(b.RawData(), m.blocks[i].RawData())
				if shares != c.keeps[i] {
					t.Errorf("block %d shares the frame: %v, want %v", i, shares, c.keeps[i])
				}
				if cap(b.RawData()) > 2*len(b.RawData()) && !c.keeps[i] {
					t.Errorf("block %d of %d bytes has %d allocated", i, len(b.RawData()), cap(b.RawData()))
				}
			}
		})
	}
}

// slowReader is a stream that counts deadlines, gives a little at a time and then times out.
type slowReader struct {
	r         io.Reader
	deadlines int
	asked     int // longest single read asked for
}

func (s *slowReader) Read(p []byte) (int, error) {
	s.asked = max(s.asked, len(p))
	n, err := s.r.Read(p[:min(len(p), 32<<10)])
	if err == io.EOF {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

func (s *slowReader) SetReadDeadline(at time.Time) error {
	if !at.IsZero() {
		s.deadlines++
	}
	return nil
}

func readOneFrame(r deadlined) ([]byte, error) {
	f := newFrameReader(r, time.Minute)
	n, err := f.length()
	if err != nil {
		return nil, err
	}
	return f.body(n)
}

func TestFrameGrowsWithWhatHasCome(t *testing.T) {
	head := binary.AppendUvarint(nil, maxFrameBytes)
	s := &slowReader{r: bytes.NewReader(append(head, 1, 2, 3))}
	if _, err := readOneFrame(s); !errors.Is(err, errSlow) {
		t.Fatalf("read ended with %v, want %v", err, errSlow)
	}
	if s.asked > firstFrameBytes {
		t.Errorf("asked for %d bytes at once before any came, at most %d are allowed", s.asked, firstFrameBytes)
	}
}

func TestFrameDeadlineMovesWithProgress(t *testing.T) {
	data := make([]byte, 3<<20)
	s := &slowReader{r: bytes.NewReader(append(binary.AppendUvarint(nil, uint64(len(data))), data...))}
	got, err := readOneFrame(s)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read %d bytes: %v", len(got), err)
	}
	if s.deadlines < 10 || s.deadlines > 14 {
		t.Errorf("deadline was set %d times for 12 × 256 KiB", s.deadlines)
	}
}

func TestFrameLengthIsBounded(t *testing.T) {
	for name, head := range map[string][]byte{
		"too long":     binary.AppendUvarint(nil, maxFrameBytes+1),
		"endless":      bytes.Repeat([]byte{0x80}, 20),
		"largest uint": binary.AppendUvarint(nil, 1<<63),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := readOneFrame(&slowReader{r: bytes.NewReader(head)}); !errors.Is(err, errMalformed) {
				t.Errorf("read ended with %v, want %v", err, errMalformed)
			}
		})
	}
}

func TestFramesOfRandomLength(t *testing.T) {
	seed := mrand.Uint64()
	t.Logf("seed %d", seed)
	rnd := mrand.New(mrand.NewPCG(seed, 0))
	var wire []byte
	var want [][]byte
	for range 50 {
		b := make([]byte, rnd.IntN(1<<rnd.IntN(20)+1))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		want = append(want, b)
		wire = append(binary.AppendUvarint(wire, uint64(len(b))), b...)
	}
	f := newFrameReader(&slowReader{r: bytes.NewReader(wire)}, time.Minute)
	for i, w := range want {
		n, err := f.length()
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.body(n)
		if err != nil || !bytes.Equal(got, w) {
			t.Fatalf("frame %d: %d bytes, want %d: %v", i, len(got), len(w), err)
		}
		freeFrame(got)
	}
}

func FuzzDecodeFrame(f *testing.F) {
	for _, m := range []*message{{}, messageOf(f, 1), {blocks: []blocks.Block{rawBlockOf(f, 5)}}} {
		f.Add(bare(f, encoded(f, m)))
	}
	f.Add([]byte{0x0a, 0x02, 0x0a, 0x00})
	f.Add([]byte{0x1a, 0x04, 0x0a, 0x02, 0x01, 0x55})
	f.Fuzz(func(t *testing.T, frame []byte) {
		m, err := decodeAndVerify(bytes.Clone(frame))
		if err != nil {
			if !errors.Is(err, errMalformed) {
				t.Fatalf("error %v does not say malformed", err)
			}
			return
		}
		var g pb.Message
		if err := proto.Unmarshal(frame, &g); err == nil && len(g.Payload)+len(g.Blocks) != len(m.blocks) {
			t.Fatalf("%d blocks, generated code reads %d", len(m.blocks), len(g.Payload)+len(g.Blocks))
		}
		for _, b := range m.blocks {
			if c, err := b.Cid().Prefix().Sum(b.RawData()); err != nil || c != b.Cid() {
				t.Fatalf("block %s does not hash to its cid: %v", b.Cid(), err)
			}
		}
		again, err := decodeAndVerify(bare(t, encoded(t, m)))
		if err != nil {
			t.Fatalf("own encoding is refused: %v", err)
		}
		sameMessage(t, again, m)
	})
}
