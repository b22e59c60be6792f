package dag

import (
	"bytes"
	"context"
	"fmt"
	"io"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// File imports what r gives. fileBytes is the length it will have, or -1 if that is not known; ErrSize if it has
// another. m is kept with Config.Preserve. All blocks have been put when File returns without an error; after one,
// some may have been.
func (b *Builder) File(ctx context.Context, r io.Reader, fileBytes int64, m Meta) (Link, error) {
	f := &fileImport{b: b, want: fileBytes, tree: tree{b: b}}
	root, err := f.run(ctx, r, b.meta(m))
	if err != nil {
		return Link{}, fmt.Errorf("import file: %w", err)
	}
	return Link{CID: root.cid, Bytes: root.dagBytes, FileBytes: root.bytes}, nil
}

// fileImport is one call of File. Its goroutine reads, and takes the hashed leaves in order; others hash and write.
type fileImport struct {
	b      *Builder
	want   int64 // bytes announced, or -1
	read   int64 // bytes so far
	body   Body  // nil: leaves are put loose
	tree   tree
	flying []chan leafDone // leaves being hashed and written, in order
}

// leafDone is what became of one chunk.
type leafDone struct {
	leaf child
	err  error
}

func (f *fileImport) run(ctx context.Context, r io.Reader, m Meta) (child, error) {
	if f.want >= BodyBytes {
		body, err := f.b.cfg.Sink.Body(ctx, uint64(f.want))
		if err != nil {
			return child{}, err
		}
		f.body = body
	}
	root, err := f.build(ctx, r, m)
	if f.body != nil {
		if err != nil {
			f.body.Abort()
		} else {
			err = f.body.Commit(ctx, root.cid)
		}
	}
	return root, err
}

// build reads to the end and makes the tree. No goroutine it started is left when it returns.
func (f *fileImport) build(ctx context.Context, r io.Reader, m Meta) (child, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := f.readAll(ctx, r)
	if err != nil {
		cancel(err)
	}
	for len(f.flying) > 0 {
		if lerr := f.land(ctx); err == nil && lerr != nil {
			err = lerr
			cancel(err)
		}
	}
	if err != nil {
		return child{}, err
	}
	if f.read == 0 {
		return f.empty(ctx, m)
	}
	return f.tree.root(ctx, m, f.b.cfg.Preserve)
}

// empty makes the root of a file without bytes.
func (f *fileImport) empty(ctx context.Context, m Meta) (child, error) {
	if f.b.cfg.Preserve {
		blk, root := fileNode(nil, m)
		return root, f.b.putOne(ctx, blk)
	}
	blk := newBlock(cid.Raw, nil)
	return child{cid: blk.Cid()}, f.b.putOne(ctx, blk)
}

// readAll cuts r into chunks and has them hashed.
func (f *fileImport) readAll(ctx context.Context, r io.Reader) error {
	for {
		buf := f.chunk()
		n, err := readFull(r, buf)
		if f.want >= 0 && f.read+int64(n) > f.want {
			err = fmt.Errorf("%w: more than %d bytes", ErrSize, f.want)
		}
		if n == 0 || err != nil && err != io.EOF {
			f.b.release(buf)
		} else if lerr := f.launch(ctx, buf, n); lerr != nil {
			return lerr
		}
		switch {
		case err == io.EOF && f.want >= 0 && f.read != f.want:
			return fmt.Errorf("%w: %d bytes instead of %d", ErrSize, f.read, f.want)
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// readFull is io.ReadFull, except that the end of r is io.EOF however much was read, so that it can be told from a
// reader that was cut off.
func readFull(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// chunk returns a buffer for the next chunk: one of the pool if the body will give it back, else one that fits.
func (f *fileImport) chunk() []byte {
	if f.body != nil {
		return f.b.buffer()
	}
	size := int64(f.b.cfg.chunkBytes)
	if f.want >= 0 {
		size = max(min(size, f.want-f.read), 1) // one byte more shows the end
	}
	return make([]byte, size)
}

// launch has n bytes of buf hashed and written by another goroutine, once a worker is free.
func (f *fileImport) launch(ctx context.Context, buf []byte, n int) error {
	for len(f.flying) >= cap(f.b.workers)+1 {
		if err := f.land(ctx); err != nil {
			return err
		}
	}
	if err := f.b.enter(ctx); err != nil {
		return err
	}
	off := f.read
	f.read += int64(n)
	done := make(chan leafDone, 1)
	f.flying = append(f.flying, done)
	go func() {
		defer f.b.leave()
		leaf, err := f.leaf(ctx, uint64(off), buf, n)
		done <- leafDone{leaf, err}
	}()
	return nil
}

// leaf hashes and writes one chunk.
func (f *fileImport) leaf(ctx context.Context, off uint64, buf []byte, n int) (child, error) {
	if f.body == nil && n < len(buf)*3/4 {
		buf = bytes.Clone(buf[:n]) // the sink may keep it long
	}
	blk := newBlock(cid.Raw, buf[:n])
	f.b.cfg.Visit(blk.Cid())
	var err error
	if f.body != nil {
		err = f.body.Put(ctx, off, []blocks.Block{blk})
		f.b.release(buf)
	} else {
		err = f.b.cfg.Sink.Put(ctx, []blocks.Block{blk})
	}
	return child{cid: blk.Cid(), bytes: uint64(n), dagBytes: uint64(n)}, err
}

// land waits for the oldest leaf that is flying and puts it into the tree.
func (f *fileImport) land(ctx context.Context) error {
	done := <-f.flying[0]
	f.flying = f.flying[1:]
	if done.err != nil {
		return done.err
	}
	return f.tree.add(ctx, done.leaf)
}
