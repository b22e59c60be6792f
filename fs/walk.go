package fs

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/holdfastfs/holdfast/fs/unixfs"
	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"
)

const (
	walksKept     = 16      // directories followed at once
	walkEntries   = 1 << 16 // a directory with more is not followed
	walkFileBytes = 1 << 20 // fetched ahead of each file; its own readahead does the rest
	walkParallel  = 32      // roots waited for at once
	walkDepth     = 2       // directories inside directories looked into ahead
	walkWarm      = 2 * time.Second
)

// walks fetches ahead for programs that open the files of a directory one after another, and directory after
// directory. Listing alone fetches no file: a program must have opened two in sequence.
type walks struct {
	tree *tree

	// mu guards what follows.
	mu     sync.Mutex
	dirs   map[uint64]*walk
	clock  uint64
	warm   time.Time // until when a directory just listed is taken for the next of a walk
	window int       // that the walk has earned
}

// walk follows one directory.
type walk struct {
	node *node
	ctx  context.Context
	stop context.CancelFunc
	used uint64 // guarded by walks.mu

	// mu guards what follows. A directory's is taken before its parent's.
	mu     sync.Mutex
	told   bool     // that it is part of a walk, to its parent
	opened []string // before the order was known
	order  *order   // nil until the directory is read
	state  loading
	queue  []unixfs.Entry
	busy   bool
}

type loading uint8

const (
	notLoaded loading = iota
	beingLoaded
	loaded
)

func newWalks(t *tree) *walks { return &walks{tree: t, dirs: make(map[uint64]*walk)} }

// get returns the walk of a directory, beginning one if need be and giving up the one not used longest.
func (w *walks) get(dir *node) *walk {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock++
	k := w.dirs[dir.id]
	if k == nil || k.ctx.Err() != nil {
		k = &walk{node: dir}
		k.ctx, k.stop = context.WithCancel(w.tree.serving.Load().Context)
		w.dirs[dir.id] = k
	}
	k.used = w.clock
	if len(w.dirs) > walksKept {
		oldest := k
		for _, other := range w.dirs {
			if other.used < oldest.used {
				oldest = other
			}
		}
		oldest.stop()
		delete(w.dirs, oldest.node.id)
	}
	return k
}

// opened takes note that a program opens a file.
func (w *walks) opened(n *node) {
	if n.parent == nil || w.tree.cfg.ReadaheadBytes <= 0 {
		return
	}
	w.observe(w.get(n.parent), n.name)
}

// listed takes note that a program opens a directory. In the middle of a walk, it is about to read it.
func (w *walks) listed(n *node) {
	w.mu.Lock()
	window, warm := w.window, time.Now().Before(w.warm)
	w.mu.Unlock()
	if !warm || w.tree.cfg.ReadaheadBytes <= 0 {
		return
	}
	k := w.get(n)
	k.mu.Lock()
	fresh := k.state == notLoaded
	if fresh {
		w.loadLocked(k, window)
	}
	k.mu.Unlock()
	if fresh && n.parent != nil {
		w.observe(w.get(n.parent), n.name)
	}
}

// observe follows a program to the entry called name.
func (w *walks) observe(k *walk, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state != loaded {
		if len(k.opened) < mostFiles {
			k.opened = append(k.opened, name)
		}
		if k.state == notLoaded && len(k.opened) >= 2 {
			w.loadLocked(k, 0)
		}
		return
	}
	w.followLocked(k, name)
}

func (w *walks) followLocked(k *walk, name string) {
	if k.order == nil {
		return
	}
	next := k.order.observe(name)
	if k.order.window > 0 {
		w.mu.Lock()
		w.warm, w.window = time.Now().Add(walkWarm), k.order.window
		w.mu.Unlock()
	}
	w.fetchLocked(k, next)
	if k.order.window > 0 && !k.told && k.node.parent != nil {
		k.told = true
		w.observe(w.get(k.node.parent), k.node.name)
	}
}

// loadLocked reads the directory in the background. With a window, its first files are fetched without waiting for a
// sequence.
func (w *walks) loadLocked(k *walk, window int) {
	k.state = beingLoaded
	w.tree.work.Go(func() {
		entries := w.read(k)
		var o *order
		if len(entries) > 0 {
			o = newOrder(entries, k.node.ino, w.tree.cfg.ReadaheadBytes)
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		k.order, k.state = o, loaded
		if o == nil {
			k.opened = nil
			return
		}
		if window > 0 {
			w.fetchLocked(k, o.start(window))
		}
		for _, name := range k.opened {
			w.followLocked(k, name)
		}
		k.opened = nil
	})
}

// read lists a directory that is not too big to be followed.
func (w *walks) read(k *walk) []unixfs.Entry {
	ctx, cancel := context.WithTimeout(k.ctx, w.tree.cfg.Timeout)
	defer cancel()
	d, err := w.tree.dir(ctx, k.node)
	if err != nil {
		return nil
	}
	var entries []unixfs.Entry
	err = d.list(ctx, 0, func(e unixfs.EntryAt) bool {
		entries = append(entries, e.Entry)
		return len(entries) <= walkEntries
	})
	if err != nil || len(entries) > walkEntries {
		return nil
	}
	return entries
}

// unread leaves out the files that were opened before: their first bytes were here then, and the kernel most likely has
// them still. parent may be nil: of a directory that nobody looked up, nothing was opened.
func (w *walks) unread(parent *node, entries []unixfs.Entry) []unixfs.Entry {
	if parent == nil {
		return entries
	}
	return slices.DeleteFunc(entries, func(e unixfs.Entry) bool {
		n := w.tree.table.child(parent, e.Name, false)
		return n != nil && n.checked.Load()
	})
}

// fetchLocked hands entries to the walk's fetcher.
func (w *walks) fetchLocked(k *walk, entries []unixfs.Entry) {
	entries = w.unread(k.node, entries)
	if len(entries) == 0 || k.ctx.Err() != nil {
		return
	}
	k.queue = append(k.queue, entries...)
	if k.busy {
		return
	}
	k.busy = true
	w.tree.work.Go(func() { w.run(k) })
}

func (w *walks) run(k *walk) {
	for {
		k.mu.Lock()
		entries := k.queue
		k.queue = nil
		if len(entries) == 0 || k.ctx.Err() != nil {
			k.busy = false
			k.mu.Unlock()
			return
		}
		k.mu.Unlock()
		ctx, cancel := context.WithTimeout(k.ctx, w.tree.cfg.Timeout)
		w.fetch(ctx, k, k.node, entries, walkDepth)
		cancel()
	}
}

// fetch asks for the first bytes of files in the directory parent, nil if nobody looked it up. A raw block is a whole
// file; other roots have to be looked at.
func (w *walks) fetch(ctx context.Context, k *walk, parent *node, entries []unixfs.Entry, depth int) {
	var raw, roots []unixfs.Want
	var names []string
	for _, e := range entries {
		want := unixfs.Want{CID: e.CID, Dataset: w.tree.datasetOf(k.node, e)}
		if e.CID.Prefix().Codec == cid.Raw {
			raw = append(raw, want)
		} else {
			roots, names = append(roots, want), append(names, e.Name)
		}
	}
	if len(raw) > 0 {
		w.tree.blocks.Prefetch(k.ctx, raw)
	}
	if len(roots) == 0 || depth == 0 {
		return
	}
	w.tree.blocks.Prefetch(k.ctx, roots)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(walkParallel)
	for i, r := range roots {
		group.Go(func() error {
			var known *node
			if parent != nil {
				known = w.tree.table.child(parent, names[i], false)
			}
			w.look(ctx, k, known, r, depth)
			return nil
		})
	}
	group.Wait()
}

// look fetches what a program will want of an entry first; known is its node, if it has one. What fails is the reader's
// to find.
func (w *walks) look(ctx context.Context, k *walk, known *node, root unixfs.Want, depth int) {
	un, err := w.tree.reader.Node(ctx, root.CID, root.Dataset)
	if err != nil {
		return
	}
	switch un.Kind {
	case unixfs.KindFile:
		w.lookFile(ctx, k, un)
	case unixfs.KindDir:
		d, err := w.tree.reader.Dir(un)
		if err != nil {
			return
		}
		var first []unixfs.Entry
		for e, err := range d.Entries(ctx, 0) {
			if err != nil || len(first) == firstFiles {
				break
			}
			first = append(first, e.Entry)
		}
		w.fetch(ctx, k, known, w.unread(known, first), depth-1)
	}
}

// lookFile asks for the first bytes of a file.
func (w *walks) lookFile(ctx context.Context, k *walk, un *unixfs.Node) {
	file, err := w.tree.reader.Open(un)
	if err != nil {
		return
	}
	leaves, err := file.Leaves(ctx, 0, walkFileBytes, false)
	if err != nil {
		return
	}
	wants := make([]unixfs.Want, len(leaves))
	for i, l := range leaves {
		wants[i] = l.Want
	}
	w.tree.blocks.Prefetch(k.ctx, wants)
}
