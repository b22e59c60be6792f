package seal

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

var writeVectors = flag.Bool("write-vectors", false, "write testdata/vectors.json anew")

// vector is one sealing, for other implementations to compare with. Bytes are in hexadecimal digits.
type vector struct {
	Secret     string
	Provider   string
	Chunk      string
	Key        string
	Bytes      int    // of the chunk; byte i is the first byte of sha2-256(i as 8 bytes, big endian)
	SealedHash string // sha2-256 of all sealed bytes
	Root       string
	ProofIndex int
	Proof      []string
	Pledge     string // marshalled, signed by the key whose seed is sha2-256("provider")
}

func vectorBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		var x [8]byte
		for j := range x {
			x[j] = byte(i >> (8 * (7 - j)))
		}
		sum := sha256.Sum256(x[:])
		b[i] = sum[0]
	}
	return b
}

func makeVector(t *testing.T, n int) vector {
	key, provider := testKey(t, "provider")
	_, writer := testKey(t, "writer")
	secret := randBytes(uint64(n), 32)
	chunk := testCID(t, uint64(n))
	v := vector{Secret: hex.EncodeToString(secret), Provider: provider.String(), Chunk: chunk.String(), Bytes: n}
	k := KeyFor(secret, provider, chunk)
	v.Key = hex.EncodeToString(k[:])
	b := vectorBytes(n)
	m, err := k.Seal(b, b)
	must(t, err)
	sum, root := sha256.Sum256(b), m.Root()
	v.SealedHash, v.Root = hex.EncodeToString(sum[:]), hex.EncodeToString(root[:])
	v.ProofIndex = len(m.Segments) / 2
	for _, h := range m.Prove(v.ProofIndex) {
		v.Proof = append(v.Proof, hex.EncodeToString(h[:]))
	}
	p := Pledge{Chunk: chunk, SealedRoot: root, Bytes: int64(n), Price: uint64(n), Expiry: time.Unix(1_900_000_000, 0),
		Writer: writer, Provider: provider, At: time.Unix(1_800_000_000, 0)}
	must(t, p.Sign(key))
	pb, err := p.Marshal()
	must(t, err)
	v.Pledge = hex.EncodeToString(pb)
	return v
}

func TestVectors(t *testing.T) {
	const path = "testdata/vectors.json"
	if *writeVectors {
		var all []vector
		for _, n := range []int{1, 16, 65535, 65536, 65537, 3*65536 + 5, 11 * 65536} {
			all = append(all, makeVector(t, n))
		}
		b, err := json.MarshalIndent(all, "", "\t")
		must(t, err)
		must(t, os.WriteFile(path, append(b, '\n'), 0o644))
	}
	b, err := os.ReadFile(path)
	must(t, err)
	var all []vector
	must(t, json.Unmarshal(b, &all))
	if len(all) != 7 {
		t.Fatalf("%d vectors", len(all))
	}
	for _, v := range all {
		checkVector(t, v)
	}
}

func checkVector(t *testing.T, v vector) {
	t.Helper()
	secret, err := hex.DecodeString(v.Secret)
	must(t, err)
	provider, err := peer.Decode(v.Provider)
	must(t, err)
	chunk, err := cid.Decode(v.Chunk)
	must(t, err)
	k := KeyFor(secret, provider, chunk)
	b := vectorBytes(v.Bytes)
	m, err := k.Seal(b, b)
	must(t, err)
	sum, root := sha256.Sum256(b), m.Root()
	if got := hex.EncodeToString(k[:]); got != v.Key {
		t.Errorf("%d bytes: key %s, want %s", v.Bytes, got, v.Key)
	}
	if got := hex.EncodeToString(sum[:]); got != v.SealedHash {
		t.Errorf("%d bytes: sealed bytes hash to %s, want %s", v.Bytes, got, v.SealedHash)
	}
	if got := hex.EncodeToString(root[:]); got != v.Root {
		t.Errorf("%d bytes: root %s, want %s", v.Bytes, got, v.Root)
	}
	var p Proof
	for _, s := range v.Proof {
		h, err := hex.DecodeString(s)
		must(t, err)
		p = append(p, [32]byte(h))
	}
	off := v.ProofIndex * SegmentBytes
	must(t, p.Verify(root, len(m.Segments), v.ProofIndex, b[off:off+SegmentLen(m.Bytes, v.ProofIndex)]))
	raw, err := hex.DecodeString(v.Pledge)
	must(t, err)
	pledge, err := UnmarshalPledge(raw)
	must(t, err)
	must(t, pledge.Verify())
	if pledge.SealedRoot != root || !pledge.Chunk.Equals(chunk) || pledge.Bytes != int64(v.Bytes) {
		t.Errorf("the pledge is about something else: %+v", pledge)
	}
}
