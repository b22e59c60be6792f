package seal

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

// testKey is the same key for the same name, every time.
func testKey(t testing.TB, name string) (crypto.PrivKey, peer.ID) {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	must(t, err)
	id, err := peer.IDFromPrivateKey(key)
	must(t, err)
	return key, id
}

// randBytes are the same for the same seed, every time.
func randBytes(seed uint64, n int) []byte {
	r := rand.NewChaCha8(sha256.Sum256(binary.BigEndian.AppendUint64(nil, seed)))
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

func testCID(t testing.TB, seed uint64) cid.Cid {
	t.Helper()
	hash, err := mh.Sum(randBytes(seed, 32), mh.SHA2_256, -1)
	must(t, err)
	return cid.NewCidV1(cid.DagCBOR, hash)
}
