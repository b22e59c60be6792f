package node

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/holdfastfs/holdfast/fs/unixfs"
)

// An aheadReader reads pieces of this many bytes, the first a small one so that it comes soon.
const (
	firstPiece = 1 << 20
	pieceBytes = 4 << 20
	pieceCount = 3 // in memory at once
)

// aheadReader reads a file in order, the next pieces while the last one is being used, and tells the cache what will
// be wanted after them.
type aheadReader struct {
	f      *openFile
	cancel context.CancelFunc
	done   sync.WaitGroup
	pieces chan piece
	free   chan []byte

	now  []byte // what is left of the piece in hand
	hand []byte // its buffer
	err  error
}

type piece struct {
	data []byte
	buf  []byte
	err  error
}

func newAheadReader(ctx context.Context, f *openFile, off uint64) *aheadReader {
	ctx, cancel := context.WithCancel(ctx)
	r := &aheadReader{f: f, cancel: cancel, pieces: make(chan piece, pieceCount), free: make(chan []byte, pieceCount)}
	size := min(pieceBytes, f.node.Bytes-min(off, f.node.Bytes))
	for range pieceCount {
		r.free <- nil // made when first used
		if size < pieceBytes {
			break
		}
	}
	r.done.Go(func() { r.fill(ctx, off, size) })
	return r
}

// fill reads to the end of the file, or of ctx.
func (r *aheadReader) fill(ctx context.Context, off, size uint64) {
	defer close(r.pieces)
	ahead := off
	for n := min(size, firstPiece); off < r.f.node.Bytes; n = size {
		var buf []byte
		select {
		case buf = <-r.free:
		case <-ctx.Done():
			return
		}
		if buf == nil {
			buf = make([]byte, size)
		}
		ahead = r.announce(ctx, off, ahead)
		limited, cancel := context.WithTimeout(ctx, r.f.quiet)
		got, err := r.f.file.ReadAt(limited, buf[:n], off)
		cancel()
		if errors.Is(err, io.EOF) {
			err = nil
		}
		if err == nil && got == 0 {
			err = io.ErrUnexpectedEOF
		}
		r.pieces <- piece{data: buf[:got], buf: buf, err: answer(err)} // there is room: as many as buffers
		if err != nil {
			return
		}
		off += uint64(got)
	}
}

// announce tells the cache of what follows off and returns how far it has been told.
func (r *aheadReader) announce(ctx context.Context, off, ahead uint64) uint64 {
	window := uint64(r.f.n.cfg.Settings.Readahead)
	if ahead >= off+window/2 || ahead >= r.f.node.Bytes {
		return ahead
	}
	ahead = max(ahead, off)
	limited, cancel := context.WithTimeout(ctx, r.f.quiet)
	defer cancel()
	leaves, err := r.f.file.Leaves(limited, ahead, off+window-ahead, false)
	if err != nil {
		return ahead // the read says why
	}
	wants := make([]unixfs.Want, len(leaves))
	for i, l := range leaves {
		wants[i] = l.Want
		ahead = max(ahead, l.Offset+l.Bytes)
	}
	r.f.n.blocks.Prefetch(ctx, wants)
	return ahead
}

func (r *aheadReader) Read(p []byte) (int, error) {
	for len(r.now) == 0 {
		if r.hand != nil {
			r.free <- r.hand // there is room: as many as buffers
			r.hand = nil
		}
		if r.err != nil {
			return 0, r.err
		}
		next, ok := <-r.pieces
		if !ok {
			r.err = io.EOF
			continue
		}
		r.now, r.hand, r.err = next.data, next.buf, next.err
	}
	n := copy(p, r.now)
	r.now = r.now[n:]
	return n, nil
}

// Close ends the reading ahead.
func (r *aheadReader) Close() error {
	r.cancel()
	r.done.Wait()
	return nil
}
