package exchange

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"sync"
	"time"
)

const (
	firstFrameBytes = 64 << 10  // allocated for a frame before any of it has come
	progressBytes   = 256 << 10 // what has to come, or go, within one message timeout
	readBufferBytes = 4 << 10
	frameLenBytes   = 4 // varint bytes of maxFrameBytes
)

// errSlow says that a peer has begun a message and does not go on with it fast enough.
var errSlow = errors.New("peer is too slow in the middle of a message")

// errCutOff says that a stream ended in the middle of a message.
var errCutOff = errors.New("stream ended in the middle of a message")

// framePool keeps the memory of frames out of which every block was copied.
var framePool sync.Pool // of *[]byte

// freeFrame gives back a frame that nothing points into.
func freeFrame(frame []byte) {
	if cap(frame) >= firstFrameBytes {
		frame = frame[:0]
		framePool.Put(&frame)
	}
}

// newFrame returns n bytes of undefined content in memory of at most twice as many.
func newFrame(n int) []byte {
	if n >= firstFrameBytes {
		if p, ok := framePool.Get().(*[]byte); ok && cap(*p) >= n && cap(*p) <= 2*n {
			return (*p)[:n]
		}
	}
	return make([]byte, n)
}

// deadlined is the part of a stream that a frameReader needs.
type deadlined interface {
	io.Reader
	SetReadDeadline(time.Time) error
}

// frameReader reads length-prefixed messages from one stream. It is used by one goroutine.
type frameReader struct {
	s       deadlined
	br      *bufio.Reader
	timeout time.Duration
	credit  int // bytes that may be allocated ahead of what has come
	read    int // bytes since the deadline was last set
}

func newFrameReader(s deadlined, timeout time.Duration) *frameReader {
	return &frameReader{s: s, br: bufio.NewReaderSize(s, readBufferBytes), timeout: timeout, credit: firstFrameBytes}
}

// length waits for the next message, however long that takes, and returns its length. io.EOF alone
// says that the peer has closed the stream between two messages.
func (f *frameReader) length() (int, error) {
	if err := f.s.SetReadDeadline(time.Time{}); err != nil {
		return 0, fmt.Errorf("read message: %w", err)
	}
	if _, err := f.br.Peek(1); err != nil {
		return 0, err
	}
	if err := f.extend(); err != nil {
		return 0, err
	}
	n := 0
	for i := range frameLenBytes {
		b, err := f.br.ReadByte()
		if err != nil {
			return 0, f.failed(err)
		}
		n |= int(b&0x7f) << (7 * i)
		if b < 0x80 {
			if n > maxFrameBytes {
				return 0, malformed("message of %d bytes, at most %d are allowed", n, maxFrameBytes)
			}
			return n, nil
		}
	}
	return 0, malformed("message length of more than %d bytes", frameLenBytes)
}

// body reads a message of n bytes. Memory grows with what has come: a peer gets as much ahead as
// the longest message it has already sent on this stream.
func (f *frameReader) body(n int) ([]byte, error) {
	buf := newFrame(min(n, f.credit))
	for have := 0; ; {
		got, err := f.fill(buf[have:])
		have += got
		if err != nil {
			freeFrame(buf)
			return nil, f.failed(err)
		}
		if have == n {
			f.credit = max(f.credit, n)
			return buf, nil
		}
		grown := newFrame(min(n, 1<<bits.Len(uint(have))))
		copy(grown, buf)
		freeFrame(buf)
		buf = grown
	}
}

// fill reads until b is full and extends the deadline as bytes come.
func (f *frameReader) fill(b []byte) (int, error) {
	total := 0
	for total < len(b) {
		n, err := f.br.Read(b[total:])
		total += n
		if f.read += n; f.read >= progressBytes {
			if err := f.extend(); err != nil {
				return total, err
			}
		}
		if err != nil && total < len(b) {
			return total, err
		}
	}
	return total, nil
}

func (f *frameReader) extend() error {
	f.read = 0
	if err := f.s.SetReadDeadline(time.Now().Add(f.timeout)); err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	return nil
}

// failed says why a message that had begun did not end.
func (f *frameReader) failed(err error) error {
	switch {
	case isTimeout(err):
		return fmt.Errorf("read message: %w", errSlow)
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read message: %w: %w", errCutOff, err)
}

// isTimeout reports whether a deadline of ours is why reading or writing failed.
func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}
