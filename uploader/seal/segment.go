package seal

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/holdfastfs/holdfast/erasure"
)

// Sizes in bytes, and the most segments a chunk can have.
const (
	SegmentBytes  = 64 << 10
	MaxChunkBytes = erasure.MaxChunk
	MaxSegments   = MaxChunkBytes / SegmentBytes
)

// The errors of this package; test with [errors.Is].
var (
	ErrMalformed = errors.New("malformed storage message")
	ErrSignature = errors.New("pledge is not signed by its provider")
	ErrProof     = errors.New("segment does not lead to the root")
	ErrMap       = errors.New("segment map does not fit the chunk")
)

// Map lists the sha2-256 of each segment of a sealed chunk.
type Map struct {
	Bytes    int64 // of the chunk
	Segments [][32]byte
}

// MapOf reads a sealed chunk to its end and maps it. It fails with [ErrMap] for one that is empty or
// longer than [MaxChunkBytes], and with the reader's errors.
func MapOf(sealed io.Reader) (Map, error) {
	var m Map
	buf := make([]byte, SegmentBytes)
	for {
		n, err := io.ReadFull(sealed, buf)
		if n > 0 {
			m.Bytes += int64(n)
			m.Segments = append(m.Segments, sha256.Sum256(buf[:n]))
		}
		switch {
		case m.Bytes > MaxChunkBytes:
			return Map{}, fmt.Errorf("map more than %d bytes: %w", MaxChunkBytes, ErrMap)
		case err == nil:
			continue
		case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return Map{}, fmt.Errorf("map chunk: %w", err)
		case m.Bytes == 0:
			return Map{}, fmt.Errorf("map nothing: %w", ErrMap)
		}
		return m, nil
	}
}

// SegmentCount returns how many segments a chunk of so many bytes has.
func SegmentCount(bytes int64) int { return int((bytes + SegmentBytes - 1) / SegmentBytes) }

// SegmentLen returns the length in bytes of segment i of a chunk of so many bytes: zero where it has none.
func SegmentLen(bytes int64, i int) int {
	return int(max(0, min(SegmentBytes, bytes-int64(i)*SegmentBytes)))
}

// Check returns [ErrMap] unless there are as many segments as the bytes need, within the limits.
func (m Map) Check() error {
	if m.Bytes < 1 || m.Bytes > MaxChunkBytes || len(m.Segments) != SegmentCount(m.Bytes) {
		return fmt.Errorf("%d segments of %d bytes: %w", len(m.Segments), m.Bytes, ErrMap)
	}
	return nil
}

// CheckSegment returns [ErrMap] unless b is segment i, by length and hash.
func (m Map) CheckSegment(i int, b []byte) error {
	if i < 0 || i >= len(m.Segments) || len(b) != SegmentLen(m.Bytes, i) {
		return fmt.Errorf("segment %d of %d bytes: %w", i, len(b), ErrMap)
	}
	if sha256.Sum256(b) != m.Segments[i] {
		return fmt.Errorf("segment %d hashes to something else: %w", i, ErrMap)
	}
	return nil
}
