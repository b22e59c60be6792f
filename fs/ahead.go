package fs

import (
	"context"
	"sync"

	"github.com/holdfastfs/holdfast/fs/unixfs"
)

// aheadFile fetches ahead for one handle. Finding out which blocks lie ahead may need inner nodes from the network,
// so that is done beside the reads, one range at a time.
type aheadFile struct {
	tree *tree
	file *unixfs.File
	ctx  context.Context
	stop context.CancelFunc

	// mu guards what follows.
	mu       sync.Mutex
	seq      sequence
	from, to uint64 // what to fetch next; empty if from == to
	busy     bool   // a goroutine is at it
	ended    bool
}

func newAheadFile(t *tree, f *unixfs.File) *aheadFile {
	a := &aheadFile{tree: t, file: f, seq: sequence{max: uint64(t.cfg.ReadaheadBytes), size: f.Bytes()}}
	a.ctx, a.stop = context.WithCancel(context.Background())
	return a
}

// observe takes note of a read and starts what it calls for.
func (a *aheadFile) observe(off, n uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	from, to := a.seq.observe(off, n)
	if from == to || a.ended {
		return
	}
	if a.to == from && a.from != a.to {
		from = a.from // goes on where a range still waits
	}
	a.from, a.to = from, to
	if !a.busy {
		a.busy = true
		a.tree.work.Add(1)
		go a.run()
	}
}

// end withdraws what was asked for ahead.
func (a *aheadFile) end() {
	a.mu.Lock()
	a.ended = true
	a.mu.Unlock()
	a.stop()
}

func (a *aheadFile) run() {
	defer a.tree.work.Done()
	for {
		a.mu.Lock()
		from, to := a.from, a.to
		a.from = to
		if from == to || a.ended {
			a.busy = false
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
		a.fetch(from, to)
	}
}

// fetch asks for the leaves of a range. Errors are the reader's to find when it gets there.
func (a *aheadFile) fetch(from, to uint64) {
	ctx, cancel := context.WithTimeout(a.ctx, a.tree.cfg.Timeout)
	defer cancel()
	leaves, err := a.file.Leaves(ctx, from, to-from, false)
	if err != nil || len(leaves) == 0 {
		return
	}
	wants := make([]unixfs.Want, len(leaves))
	for i, l := range leaves {
		wants[i] = l.Want
	}
	a.tree.stats.aheadBytes.Add(to - from)
	a.tree.blocks.Prefetch(a.ctx, wants)
}
