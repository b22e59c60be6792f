package uploader

import (
	"bytes"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// TestSealedBytesStay seals one chunk after the other into the same memory, while the first is still being sent.
func TestSealedBytesStay(t *testing.T) {
	j := newMemory()
	v := vault{shards: map[cid.Cid][]byte{}}
	var links []record
	for i := range 3 {
		var chunk erasure.Chunk
		for n := range 5 {
			b := bytes.Repeat([]byte{byte(i), byte(n)}, 512<<10)
			c := cidOf(string(b))
			chunk = append(chunk, erasure.Shard{CID: c, Bytes: len(b)})
			v.shards[c] = b
		}
		id, descriptor, err := chunk.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := j.commit(&ready{chunks: []chunkRecord{{ID: id, Bytes: chunk.Bytes(), Descriptor: descriptor}}}); err != nil {
			t.Fatal(err)
		}
		links = append(links, record{ID: seal.LinkID{byte(i)}, Chunk: id, Provider: "p", Bytes: chunk.Bytes()})
	}
	s := newSealer(Config{Secret: make([]byte, 32), Chunks: v, Limits: Limits{Sealers: 1, TransferFor: time.Hour}}, j)
	sealOne := func(l *record) {
		t.Helper()
		s.expect(l.ID)
		if _, err := s.seal(t.Context(), l, nil); err != nil {
			t.Fatal(err)
		}
	}
	sealOne(&links[0])
	sent := s.get(links[0].ID)
	s.drop(links[0].ID)
	for _, l := range links[1:] {
		sealOne(&l)
		s.drop(l.ID)
	}
	for i := range sent.segments.Segments {
		if err := sent.segments.CheckSegment(i, sent.segment(i)); err != nil {
			t.Errorf("while it is sent: %v", err)
		}
	}
	s.done(sent)
	if sent.bytes != nil || s.get(links[0].ID) != nil {
		t.Error("bytes are held that nobody uses")
	}
}
