package seal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	smallFrame      = 1 << 10
	mapFrame        = 32*MaxSegments + smallFrame
	storeFrame      = MaxDescriptorBytes + smallFrame
	auditFrame      = MaxAuditSegments * (SegmentBytes + 32*maxProof + 32)
	segmentFrame    = SegmentBytes + 16
	pledgeFrame     = MaxPledgeBytes + smallFrame
	firstFrame      = 64 << 10 // taken for a frame before any of it has come
	maxFrameLenSize = 4        // bytes of a frame's length
)

func (*Quote) limit() int            { return smallFrame }
func (*StoreRequest) limit() int     { return storeFrame }
func (*OpenChannel) limit() int      { return smallFrame }
func (*Segments) limit() int         { return mapFrame }
func (*Data) limit() int             { return smallFrame }
func (*SignatureRequest) limit() int { return smallFrame }
func (*Voucher) limit() int          { return smallFrame }
func (*Audit) limit() int            { return smallFrame }
func (*Renew) limit() int            { return smallFrame }
func (*Release) limit() int          { return smallFrame }
func (*QuoteAnswer) limit() int      { return smallFrame }
func (*StoreAnswer) limit() int      { return smallFrame }
func (*BasicAnswer) limit() int      { return smallFrame }
func (*SegmentsAnswer) limit() int   { return smallFrame }
func (*DataAnswer) limit() int       { return smallFrame }
func (*SignatureAnswer) limit() int  { return pledgeFrame }
func (*AuditAnswer) limit() int      { return auditFrame }

// requestLimit returns the most bytes of a request whose encoding begins with this byte, or zero.
func requestLimit(first byte) int {
	switch num, typ := protowire.DecodeTag(uint64(first)); {
	case typ != protowire.BytesType || num < 1 || num > 10:
		return 0
	case num == 2:
		return storeFrame
	case num == 4:
		return mapFrame
	default:
		return smallFrame
	}
}

// WriteMessage sends a message in one Write. It fails with [ErrMalformed] for one over its limit.
func WriteMessage(w io.Writer, m Message) error {
	frame, err := appendMessage(nil, m)
	if err != nil {
		return err
	}
	if _, err := w.Write(frame); err != nil {
		return fmt.Errorf("write %T: %w", m, err)
	}
	return nil
}

// appendMessage appends a message behind its length.
func appendMessage(to []byte, m Message) ([]byte, error) {
	b, err := m.encode()
	if err != nil {
		return nil, fmt.Errorf("write %T: %w", m, err)
	}
	if len(b) > m.limit() {
		return nil, fmt.Errorf("write %T of %d bytes: %w", m, len(b), ErrMalformed)
	}
	to = slices.Grow(to, len(b)+maxFrameLenSize)
	return append(binary.AppendUvarint(to, uint64(len(b))), b...), nil
}

var segmentFrames = sync.Pool{New: func() any { return new([segmentFrame + maxFrameLenSize]byte) }}

// WriteSegment sends sealed segment i, after a [Data], in one Write. It keeps nothing of segment.
func WriteSegment(w io.Writer, i int, segment []byte) error {
	if i < 0 || i >= MaxSegments || len(segment) == 0 || len(segment) > SegmentBytes {
		return fmt.Errorf("write segment %d of %d bytes: %w", i, len(segment), ErrMalformed)
	}
	size := protowire.SizeTag(2) + protowire.SizeBytes(len(segment))
	if i > 0 {
		size += protowire.SizeTag(1) + protowire.SizeVarint(uint64(i))
	}
	buf := segmentFrames.Get().(*[segmentFrame + maxFrameLenSize]byte)
	defer segmentFrames.Put(buf)
	b := binary.AppendUvarint(buf[:0], uint64(size))
	if i > 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.VarintType), uint64(i))
	}
	b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), segment)
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write segment %d: %w", i, err)
	}
	return nil
}

// EndSegments says that no segment follows.
func EndSegments(w io.Writer) error {
	if _, err := w.Write([]byte{0}); err != nil {
		return fmt.Errorf("end segments: %w", err)
	}
	return nil
}

// Reader reads messages from one stream. It reads ahead, so one stream has one Reader.
type Reader struct{ br *bufio.Reader }

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader { return &Reader{bufio.NewReaderSize(r, 4<<10)} }

// ReadRequest reads a request. Before memory is taken for it, admit is called with its length in
// bytes; its error is returned as it is. A nil admit admits all. io.EOF alone says that the stream
// ended before a request; anything out of form or bounds is [ErrMalformed].
func (r *Reader) ReadRequest(admit func(bytes int) error) (Request, error) {
	n, err := r.length()
	if err != nil {
		return nil, err
	}
	first, err := r.br.Peek(1)
	if err != nil {
		return nil, fmt.Errorf("read request: %w", noEOF(err))
	}
	if n == 0 || n > requestLimit(first[0]) {
		return nil, fmt.Errorf("read request: kind %#x of %d bytes: %w", first[0], n, ErrMalformed)
	}
	if admit != nil {
		if err := admit(n); err != nil {
			return nil, err
		}
	}
	b, err := r.body(n)
	if err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	m, err := decodeRequest(b)
	if err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	return m, nil
}

// ReadAnswer reads an answer into a. A refusal is no error of it; see [Answer].Refused.
func (r *Reader) ReadAnswer(a Answer) error {
	n, err := r.length()
	if err != nil {
		return fmt.Errorf("read %T: %w", a, noEOF(err))
	}
	if n > a.limit() {
		return fmt.Errorf("read %T of %d bytes: %w", a, n, ErrMalformed)
	}
	b, err := r.body(n)
	if err == nil {
		err = a.decode(b)
	}
	if err != nil {
		return fmt.Errorf("read %T: %w", a, err)
	}
	return nil
}

// SegmentBuffer is room for a segment on its way.
type SegmentBuffer [segmentFrame]byte

// ReadSegment reads the next segment after a [Data] into buf; the bytes returned lie in it. io.EOF
// alone says that EndSegments was called.
func (r *Reader) ReadSegment(buf *SegmentBuffer) (i int, segment []byte, err error) {
	n, err := r.length()
	if err != nil {
		return 0, nil, fmt.Errorf("read segment: %w", noEOF(err))
	}
	if n == 0 {
		return 0, nil, io.EOF
	}
	if n > len(buf) {
		return 0, nil, fmt.Errorf("read segment: frame of %d bytes: %w", n, ErrMalformed)
	}
	if _, err := io.ReadFull(r.br, buf[:n]); err != nil {
		return 0, nil, fmt.Errorf("read segment: %w", noEOF(err))
	}
	if i, segment, err = decodeSegment(buf[:n]); err != nil {
		return 0, nil, fmt.Errorf("read segment: %w", err)
	}
	return i, segment, nil
}

// decodeSegment takes the one form that WriteSegment gives: index, unless zero, then bytes.
func decodeSegment(b []byte) (i int, segment []byte, err error) {
	num, typ, size := protowire.ConsumeTag(b)
	if size > 0 && num == 1 && typ == protowire.VarintType {
		v, n := protowire.ConsumeVarint(b[size:])
		if n < 0 || v == 0 || v >= MaxSegments {
			return 0, nil, fmt.Errorf("segment index: %w", ErrMalformed)
		}
		i = int(v)
		b = b[size+n:]
		num, typ, size = protowire.ConsumeTag(b)
	}
	if size < 0 || num != 2 || typ != protowire.BytesType {
		return 0, nil, fmt.Errorf("segment without bytes: %w", ErrMalformed)
	}
	segment, n := protowire.ConsumeBytes(b[size:])
	if n < 0 || size+n != len(b) || len(segment) == 0 || len(segment) > SegmentBytes {
		return 0, nil, fmt.Errorf("segment %d of %d bytes in a frame of %d: %w", i, len(segment), len(b), ErrMalformed)
	}
	return i, segment, nil
}

// length reads a frame's length. io.EOF alone says that the stream ended before it.
func (r *Reader) length() (int, error) {
	n := 0
	for i := range maxFrameLenSize {
		c, err := r.br.ReadByte()
		if err != nil {
			if i > 0 {
				err = noEOF(err)
			}
			return 0, err
		}
		n |= int(c&0x7f) << (7 * i)
		if c < 0x80 {
			return n, nil
		}
	}
	return 0, fmt.Errorf("message length of more than %d bytes: %w", maxFrameLenSize, ErrMalformed)
}

// body reads n bytes. Memory at most doubles what has come.
func (r *Reader) body(n int) ([]byte, error) {
	buf := make([]byte, min(n, firstFrame))
	for have := 0; ; {
		got, err := io.ReadFull(r.br, buf[have:])
		have += got
		if err != nil {
			return nil, noEOF(err)
		}
		if have == n {
			return buf, nil
		}
		grown := make([]byte, min(n, 2*have))
		copy(grown, buf)
		buf = grown
	}
}

// noEOF makes the end of a stream in the middle of something an error that says so.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
