package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/dag"
)

const (
	importBatch = 256       // files that workers share out among themselves
	importTries = 3         // of a file that changes while it is read; then it waits for the next pass
	looseBytes  = 256 << 10 // loose blocks that are put together
)

// importClosed imports the files that were closed. Those that are busy, or do not fit, stay for later. It says why it
// did not import all others.
func (d *Dataset) importClosed(ctx context.Context) (intakeEnd, error) {
	in := &intake{d: d}
	last, refused := d.refused()
	var batch []FileID
	err := d.eachFile(keyClosed, func(id FileID) error {
		if _, ok := refused[id]; ok {
			return nil
		}
		if batch = append(batch, id); len(batch) < importBatch {
			return nil
		}
		err := d.importAll(ctx, in, batch)
		batch = batch[:0]
		if err == nil && !in.open() {
			err = errStop
		}
		return err
	})
	for _, ids := range [][]FileID{batch, last} {
		if err == nil {
			err = d.importAll(ctx, in, ids)
		}
	}
	return in.ended(), err
}

// importAll imports files on all cores, as long as more may wait.
func (d *Dataset) importAll(ctx context.Context, in *intake, batch []FileID) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ids := make(chan FileID)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(batch)) {
		wg.Go(func() {
			for id := range ids {
				err := d.importFile(ctx, in, id)
				if errors.Is(err, ErrFull) { // those on their way may still fit
					in.close(intakeFull)
					d.refuse(id, err)
				} else if err != nil {
					cancel(fmt.Errorf("import staged file %x: %w", id, err))
				}
			}
		})
	}
	for _, id := range batch {
		if !in.open() {
			break
		}
		select {
		case ids <- id:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
	}
	close(ids)
	wg.Wait()
	return context.Cause(ctx)
}

// importFile imports a file as it is now, unless that was done.
func (d *Dataset) importFile(ctx context.Context, in *intake, id FileID) error {
	spots, err := d.names(id, 1)
	if err != nil {
		return err
	}
	if len(spots) == 0 { // it waits for a name until all is settled
		return d.commit(func(x *tx) error { return x.flag(d.fileKey(keyNameless, id)) })
	}
	for range importTries {
		f, err := d.cfg.Staging.Open(ctx, id)
		if errors.Is(err, ErrBusy) {
			return nil
		}
		if errors.Is(err, ErrGone) { // it is on its way to another name, or gone: that is told of
			d.taken(id)
			d.lost(id)
			return nil
		}
		if err != nil {
			return err
		}
		d.found(id)
		done, err := d.importOpen(ctx, in, id, f)
		if err = errors.Join(err, f.Close()); err != nil || done {
			return err
		}
	}
	return nil
}

// importOpen imports what is open, or leaves it for later; false if it changed meanwhile.
func (d *Dataset) importOpen(ctx context.Context, in *intake, id FileID, f StagedFile) (done bool, err error) {
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	var was fileRecord
	var had bool
	err = d.view(func(x *tx) (err error) {
		was, had, err = x.file(id)
		return err
	})
	if err != nil {
		return false, err
	}
	if had && was.version == st.Version && was.mode == st.Mode && was.modTime == st.ModTime {
		d.taken(id)
		return true, d.commit(func(x *tx) error { return x.del(d.fileKey(keyClosed, id)) })
	}
	if had && was.version == st.Version { // its content is what it was
		if done, err = d.remeta(ctx, id, was, st); done {
			d.taken(id)
		}
		if done || err != nil {
			return true, err
		}
	}
	if !in.begin(st.Bytes) {
		return true, nil
	}
	defer in.done(st.Bytes)
	return d.importBegun(ctx, id, f, st, was, had)
}

// importBegun imports a file in place of what it was before, if it had been imported.
func (d *Dataset) importBegun(ctx context.Context, id FileID, f StagedFile, st FileStat, was fileRecord, had bool) (done bool, err error) {
	mark, err := d.waitMark()
	if err != nil {
		return false, err
	}
	im := &fileImport{d: d, ctx: ctx, mark: mark, id: id}
	b, err := dag.New(dag.Config{Sink: im, Preserve: true})
	if err != nil {
		return false, err
	}
	source := &reader{f: f}
	link, err := b.File(ctx, source, st.Bytes, meta(st.Mode, st.ModTime))
	changed := errors.Is(err, dag.ErrSize)
	d.unreadable(id, source.err)
	if source.err != nil {
		return true, im.abort() // tried again later
	}
	if err == nil {
		err = im.putLoose()
	}
	if err == nil || changed {
		now, serr := f.Stat()
		changed = changed || now != st
		if changed || serr != nil {
			err = serr
		}
	}
	if err != nil || changed {
		return false, errors.Join(err, im.abort())
	}
	d.taken(id)
	return true, im.finish(st, link, was, had)
}

// reader remembers that a file could not be read, which is no failure of what the blocks go to.
type reader struct {
	f   StagedFile
	err error
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.f.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// unreadable notes why a file could not be read; nil: it could.
func (d *Dataset) unreadable(id FileID, err error) {
	d.trouble.Lock()
	defer d.trouble.Unlock()
	if err == nil {
		delete(d.failures, id)
	} else if len(d.failures) < maxFailures {
		d.failures[id] = err
	}
}

// fileImport takes one file's blocks: a dag.Sink.
type fileImport struct {
	d    *Dataset
	ctx  context.Context
	mark Mark
	id   FileID

	mu     sync.Mutex // guards what follows
	loose  []blocks.Block
	bytes  int
	list   []listedBlock // the last of them, at most a piece and one more
	owner  uint64        // 0: none of the list is written yet
	pieces uint64
	total  uint64
}

// listedBlock is a block at an offset of the file; inner nodes have the one at which they were made.
type listedBlock struct {
	shard  erasure.Shard
	offset uint64
}

// Put implements dag.Sink.
func (im *fileImport) Put(ctx context.Context, blks []blocks.Block) error {
	im.mu.Lock()
	defer im.mu.Unlock()
	for _, b := range blks {
		im.loose = append(im.loose, b)
		im.bytes += len(b.RawData())
	}
	if im.bytes >= looseBytes {
		if err := im.putLooseLocked(ctx); err != nil {
			return err
		}
	}
	for _, b := range blks {
		if err := im.add(erasure.Shard{CID: b.Cid(), Bytes: len(b.RawData())}, ^uint64(0)); err != nil {
			return err
		}
	}
	return nil
}

// Body implements dag.Sink.
func (im *fileImport) Body(ctx context.Context, fileBytes uint64) (dag.Body, error) {
	body, err := im.d.cfg.Store.Body(ctx, im.mark, im.id, fileBytes)
	if err != nil {
		return nil, err
	}
	return &importBody{Body: body, im: im}, nil
}

type importBody struct {
	dag.Body
	im *fileImport
}

func (b *importBody) Put(ctx context.Context, offset uint64, blks []blocks.Block) error {
	if err := b.Body.Put(ctx, offset, blks); err != nil {
		return err
	}
	b.im.mu.Lock()
	defer b.im.mu.Unlock()
	for _, blk := range blks {
		if err := b.im.add(erasure.Shard{CID: blk.Cid(), Bytes: len(blk.RawData())}, offset); err != nil {
			return err
		}
		offset += uint64(len(blk.RawData()))
	}
	return nil
}

// Commit implements dag.Body: the inner nodes are to be there before.
func (b *importBody) Commit(ctx context.Context, file cid.Cid) error {
	if err := b.im.putLoose(); err != nil {
		b.Body.Abort()
		return err
	}
	return b.Body.Commit(ctx, file)
}

func (im *fileImport) putLoose() error {
	im.mu.Lock()
	defer im.mu.Unlock()
	return im.putLooseLocked(im.ctx)
}

func (im *fileImport) putLooseLocked(ctx context.Context) error {
	if len(im.loose) == 0 {
		return nil
	}
	blks := im.loose
	im.loose, im.bytes = nil, 0
	return im.d.cfg.Store.Put(ctx, im.mark, blks)
}

// add lists a block. A full list is written before the next is added, so that the last block, the root, is never in it.
func (im *fileImport) add(s erasure.Shard, offset uint64) error {
	if len(im.list) == pieceBlocks {
		if err := im.spill(); err != nil {
			return err
		}
	}
	im.total++
	im.list = append(im.list, listedBlock{s, offset})
	return nil
}

// spill writes the list so far. Its blocks are counted, and protected, when the whole file was read: until then the
// store may not have them for readers, and a crash leaves none of them.
func (im *fileImport) spill() error {
	if err := im.putLooseLocked(im.ctx); err != nil {
		return err
	}
	list := im.counted()
	err := im.d.commit(func(x *tx) (err error) {
		owner := im.owner
		if owner == 0 {
			if owner, err = x.next(); err != nil {
				return err
			}
			if err := x.flag(im.d.key(keyOwner, owner)); err != nil {
				return err
			}
		}
		im.owner = owner
		return x.set(im.d.key(keyDraft, owner, im.pieces), encodeList(list))
	})
	if err != nil {
		return err
	}
	im.pieces++
	im.list = im.list[:0]
	return nil
}

// counted is the list, in the order of the file: hashing on several cores mixes it up a little.
func (im *fileImport) counted() []countedBlock {
	slices.SortStableFunc(im.list, func(a, b listedBlock) int {
		switch {
		case a.offset < b.offset:
			return -1
		case a.offset > b.offset:
			return 1
		}
		return 0
	})
	list := make([]erasure.Shard, len(im.list))
	for i, b := range im.list {
		list[i] = b.shard
	}
	return countBlocks(list)
}

// abort takes back what was written of the list.
func (im *fileImport) abort() error {
	if im.owner == 0 {
		return nil
	}
	return im.d.dropOwner(im.owner)
}

// finish records the version.
func (im *fileImport) finish(st FileStat, link dag.Link, was fileRecord, had bool) error {
	d := im.d
	im.mu.Lock()
	defer im.mu.Unlock()
	root := im.list[len(im.list)-1].shard
	if root.CID != link.CID {
		return fmt.Errorf("the root of file %x was not put last", im.id)
	}
	im.list = im.list[:len(im.list)-1]
	if err := d.countDrafts(im.ctx, im.owner, im.pieces); err != nil {
		return err
	}
	spots, err := d.names(im.id, linkedAtOnce+1)
	if err != nil {
		return err
	}
	r := fileRecord{
		version: st.Version, mode: st.Mode, modTime: st.ModTime, link: link,
		root: uint64(root.Bytes), owner: im.owner, blocks: im.total,
	}
	return d.commit(func(x *tx) (err error) {
		if r.owner == 0 {
			if r.owner, err = x.next(); err != nil {
				return err
			}
		} else if err := x.del(d.key(keyOwner, r.owner)); err != nil {
			return err
		}
		if len(im.list) > 0 {
			if err := x.putPiece(r.owner, im.pieces, im.counted()); err != nil {
				return err
			}
		}
		if err := x.refer(root, 1); err != nil {
			return err
		}
		if had {
			if err := x.forget(digestOf(was.link.CID), 1); err != nil {
				return err
			}
			if err := x.flag(d.key(keyOwner, was.owner)); err != nil {
				return err
			}
		}
		if err := x.set(d.fileKey(keyFile, im.id), r.encode()); err != nil {
			return err
		}
		if err := x.del(d.fileKey(keyClosed, im.id)); err != nil {
			return err
		}
		return x.showFile(im.id, link, spots)
	})
}
