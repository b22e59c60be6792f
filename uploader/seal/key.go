package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Key seals one chunk for one provider.
type Key [32]byte

const domainKey = "holdfast/seal/1"

// KeyFor derives the key of a chunk at a provider from the writer's secret, which should have 32
// random bytes or more. Equal arguments give equal keys.
func KeyFor(secret []byte, provider peer.ID, chunk cid.Cid) Key {
	info := []byte(domainKey)
	info = appendBytes(info, []byte(provider))
	info = appendBytes(info, chunk.Bytes())
	b, err := hkdf.Key(sha256.New, secret, nil, string(info), len(Key{}))
	if err != nil {
		panic(fmt.Sprintf("derive key: %v", err)) // only of keys longer than 8,160 bytes
	}
	return Key(b)
}

// appendBytes appends b behind its length in two bytes. Peer IDs and CIDs are far shorter than that holds.
func appendBytes(to, b []byte) []byte {
	to = binary.BigEndian.AppendUint16(to, uint16(len(b)))
	return append(to, b...)
}

// XORAt seals or unseals src, which lies off bytes from the chunk's start, into dst. The slices have
// the same length and are the same or do not overlap; off is not negative.
func (k Key) XORAt(dst, src []byte, off int64) {
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic(fmt.Sprintf("seal: %v", err)) // only of keys of another length
	}
	var counter [aes.BlockSize]byte
	binary.BigEndian.PutUint64(counter[8:], uint64(off)/aes.BlockSize)
	s := cipher.NewCTR(block, counter[:])
	if skip := off % aes.BlockSize; skip > 0 {
		var pad [aes.BlockSize]byte
		s.XORKeyStream(pad[:skip], pad[:skip])
	}
	s.XORKeyStream(dst, src)
}

// Seal seals a whole chunk of 1 to [MaxChunkBytes] bytes into dst, which is as long and may be the
// same slice, and maps it on the way. It fails with [ErrMap] for another length.
func (k Key) Seal(dst, chunk []byte) (Map, error) {
	m := Map{Bytes: int64(len(chunk))}
	if m.Bytes < 1 || m.Bytes > MaxChunkBytes || len(dst) != len(chunk) {
		return Map{}, fmt.Errorf("seal %d bytes into %d: %w", len(chunk), len(dst), ErrMap)
	}
	m.Segments = make([][32]byte, 0, SegmentCount(m.Bytes))
	for off := 0; off < len(chunk); off += SegmentBytes {
		end := min(off+SegmentBytes, len(chunk))
		k.XORAt(dst[off:end], chunk[off:end], int64(off))
		m.Segments = append(m.Segments, sha256.Sum256(dst[off:end]))
	}
	return m, nil
}
