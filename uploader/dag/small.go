package dag

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

const (
	jobBytes = 256 << 10 // of small files hashed and put together
	jobItems = 128
)

// smallFiles imports a tree's files: small ones in jobs that other goroutines do, larger ones at once. One goroutine
// calls it, and enters what is done into directories, in the order in which it came.
type smallFiles struct {
	b      *Builder
	job    *fileJob
	flying []*fileJob
}

// fileJob is a batch of small files that are hashed by one worker and put in one call.
type fileJob struct {
	items []smallItem
	bytes int
	done  chan error
}

// smallItem is a file or symbolic link on its way into dir.
type smallItem struct {
	dir    *Dir
	name   string
	data   []byte
	target string // of a symbolic link
	meta   Meta
	link   Link // what came out; defined from the start for larger files
}

func newSmallFiles(b *Builder) *smallFiles { return &smallFiles{b: b, job: new(fileJob)} }

// add imports a file of size bytes.
func (s *smallFiles) add(ctx context.Context, dir *Dir, name string, r io.Reader, size int64, m Meta) error {
	it := smallItem{dir: dir, name: name, meta: m}
	if size > int64(s.b.cfg.chunkBytes) {
		var err error
		if it.link, err = s.b.File(ctx, r, size, m); err != nil {
			return err
		}
		return s.push(ctx, it)
	}
	it.data = make([]byte, size)
	if n, err := readFull(r, it.data); n < len(it.data) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read %q: %w", name, err)
	}
	return s.push(ctx, it)
}

// symlink imports a symbolic link; ErrName if no file system could hold it.
func (s *smallFiles) symlink(ctx context.Context, dir *Dir, name, target string, m Meta) error {
	if target == "" || len(target) > maxTargetBytes || strings.IndexByte(target, 0) >= 0 {
		return fmt.Errorf("%w: symbolic link to %.64q", ErrName, target)
	}
	return s.push(ctx, smallItem{dir: dir, name: name, target: target, meta: m})
}

// push adds an item to the job, and starts the job when it is full.
func (s *smallFiles) push(ctx context.Context, it smallItem) error {
	s.job.items = append(s.job.items, it)
	s.job.bytes += len(it.data)
	if s.job.bytes < jobBytes && len(s.job.items) < jobItems {
		return nil
	}
	return s.launch(ctx)
}

// launch has the job done by another goroutine, once a worker is free.
func (s *smallFiles) launch(ctx context.Context) error {
	for len(s.flying) > cap(s.b.workers) {
		if err := s.land(); err != nil {
			return err
		}
	}
	if err := s.b.enter(ctx); err != nil {
		return err
	}
	j := s.job
	j.done = make(chan error, 1)
	s.flying = append(s.flying, j)
	s.job = new(fileJob)
	go func() {
		defer s.b.leave()
		j.done <- j.run(ctx, s.b)
	}()
	return nil
}

// run makes the blocks of a job and puts them.
func (j *fileJob) run(ctx context.Context, b *Builder) error {
	blks := make([]blocks.Block, 0, len(j.items)*2)
	for i := range j.items {
		if it := &j.items[i]; !it.link.CID.Defined() {
			blks = it.build(b, blks)
		}
	}
	if len(blks) == 0 {
		return nil
	}
	for _, blk := range blks {
		b.cfg.Visit(blk.Cid())
	}
	return b.cfg.Sink.Put(ctx, blks)
}

// build appends an item's blocks and sets its link.
func (it *smallItem) build(b *Builder, blks []blocks.Block) []blocks.Block {
	if it.target != "" {
		blk := symlinkNode(it.target, b.meta(it.meta))
		it.link = Link{CID: blk.Cid(), Bytes: uint64(len(blk.RawData())), FileBytes: uint64(len(it.target))}
		return append(blks, blk)
	}
	var leaves []child
	size := uint64(len(it.data))
	root := child{bytes: size, dagBytes: size}
	if size > 0 || !b.cfg.Preserve {
		blk := newBlock(cid.Raw, it.data)
		root.cid = blk.Cid()
		blks = append(blks, blk)
		leaves = append(leaves, root)
	}
	if b.cfg.Preserve {
		var blk blocks.Block
		blk, root = fileNode(leaves, b.meta(it.meta))
		blks = append(blks, blk)
	}
	it.data = nil
	it.link = Link{CID: root.cid, Bytes: root.dagBytes, FileBytes: size}
	return blks
}

// land waits for the oldest job and enters what it made.
func (s *smallFiles) land() error {
	j := s.flying[0]
	s.flying = s.flying[1:]
	if err := <-j.done; err != nil {
		return err
	}
	for _, it := range j.items {
		it.dir.set(it.name, it.link)
	}
	return nil
}

// has reports whether an item called name is on its way into dir.
func (s *smallFiles) has(dir *Dir, name string) bool {
	if s.job.has(dir, name) {
		return true
	}
	for _, j := range s.flying {
		if j.has(dir, name) {
			return true
		}
	}
	return false
}

func (j *fileJob) has(dir *Dir, name string) bool {
	for i := range j.items {
		if j.items[i].dir == dir && j.items[i].name == name {
			return true
		}
	}
	return false
}

// finish ends all jobs. No goroutine is left when it returns, not even with an error.
func (s *smallFiles) finish(ctx context.Context) error {
	err := s.launch(ctx)
	for len(s.flying) > 0 {
		if lerr := s.land(); err == nil {
			err = lerr
		}
	}
	return err
}

// batch is a Sink that puts small blocks together.
type batch struct {
	Sink

	mu      sync.Mutex // guards all below
	pending []blocks.Block
	bytes   int
}

// Put keeps the blocks until there are enough.
func (s *batch) Put(ctx context.Context, blks []blocks.Block) error {
	s.mu.Lock()
	s.pending = append(s.pending, blks...)
	for _, b := range blks {
		s.bytes += len(b.RawData())
	}
	full := s.bytes >= jobBytes || len(s.pending) >= jobItems
	s.mu.Unlock()
	if full {
		return s.flush(ctx)
	}
	return nil
}

// flush puts what is kept.
func (s *batch) flush(ctx context.Context) error {
	s.mu.Lock()
	blks := s.pending
	s.pending, s.bytes = nil, 0
	s.mu.Unlock()
	if len(blks) == 0 {
		return nil
	}
	return s.Sink.Put(ctx, blks)
}
