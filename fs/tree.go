package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/holdfastfs/holdfast/fs/unixfs"
	"github.com/ipfs/go-cid"
)

// tree answers the kernel's requests about one mount. It works without a mount too: tests call its methods.
type tree struct {
	fuse.RawFileSystem // answers ENOSYS to what is not told here

	cfg      Config
	blocks   *guarded
	reader   *unixfs.Reader
	log      *slog.Logger
	missing  *missLog
	uid, gid uint32

	table   *table
	handles handles
	through passthrough
	walks   *walks
	work    sync.WaitGroup // goroutines that read ahead

	rootMu    sync.Mutex // guards the filling in of rootDir
	rootDir   directory  // nil until the root's block was seen
	rootKnown atomic.Bool

	serving atomic.Pointer[serving]
	waits   waits
	dead    atomic.Bool // the kernel has let go
	stats   counters
}

// serving ends the waiting of all requests at once; Unmount replaces it when the mount turns out to be busy.
type serving struct {
	context.Context
	end context.CancelFunc
}

func newServing() *serving {
	ctx, end := context.WithCancel(context.Background())
	return &serving{Context: ctx, end: end}
}

// newTree makes a tree. fileRoot says that the mount point is a regular file, so that the root is one too.
func newTree(cfg Config, uid, gid uint32, fileRoot bool) *tree {
	g, missing := newGuarded(cfg.Blocks), newMissLog(cfg.Logger)
	root := &node{id: fuse.FUSE_ROOT_ID, ino: rootInode(cfg.Root), cid: cfg.Root,
		kind: unixfs.KindDir, perm: dirMode, sec: noTime, lookups: 1}
	if fileRoot {
		root.kind, root.perm = unixfs.KindFile, uint16(cfg.FileMode.Perm())
	}
	t := &tree{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		cfg:           cfg, blocks: g, log: cfg.Logger, uid: uid, gid: gid,
		reader:  unixfs.NewReader(g, unixfs.Config{Logger: slog.New(quiet{cfg.Logger.Handler(), missing})}),
		missing: missing,
		table:   newTable(root),
	}
	t.handles.init()
	t.waits.some = make(chan struct{}, 1)
	t.walks = newWalks(t)
	t.serving.Store(newServing())
	return t
}

// String names the file system to go-fuse.
func (t *tree) String() string { return subtype }

// call begins a request that may wait.
func (t *tree) call(cancel <-chan struct{}, caller *fuse.Caller) *call {
	c := newCall(t.serving.Load().Context, cancel, caller.Pid, t.cfg.Timeout)
	c.waits = &t.waits
	return c
}

// fail answers a request with the errno of err, and tells the log what is worth telling.
func (t *tree) fail(c *call, op string, n *node, err error) fuse.Status {
	err = c.explain(err)
	errno, known := toErrno(err)
	if errno == syscall.EIO {
		t.stats.failed.Add(1)
	}
	if errno == syscall.EIO && !errors.Is(err, errShutdown) || !known {
		t.missing.report(op, n, err)
	}
	return fuse.Status(errno)
}

// dir returns the directory behind a node.
func (t *tree) dir(ctx context.Context, n *node) (directory, error) {
	if n.kind != unixfs.KindDir {
		return nil, fmt.Errorf("open directory %s: %w", n.path(), unixfs.ErrNotDir)
	}
	if n.parent == nil {
		return t.root(ctx)
	}
	d, err := t.reader.Dir(&unixfs.Node{CID: n.cid, Dataset: n.dataset(t.cfg.Root), Kind: unixfs.KindDir})
	if err != nil {
		return nil, err
	}
	return unixfsDir{d}, nil
}

// root returns the root's directory, and learns on the way what the root is when a lazy mount did not know.
func (t *tree) root(ctx context.Context) (directory, error) {
	t.rootMu.Lock()
	d := t.rootDir
	t.rootMu.Unlock()
	if d != nil {
		return d, nil
	}
	if !t.cfg.Root.Defined() {
		return namespace{t.cfg.StandsFor}, nil
	}
	un, err := t.reader.Node(ctx, t.cfg.Root, t.cfg.Root)
	if err != nil {
		return nil, err
	}
	return t.setRoot(un)
}

// setRoot takes over what the root is. On a directory mount point a file is shown as the one name in the root.
func (t *tree) setRoot(un *unixfs.Node) (directory, error) {
	t.rootMu.Lock()
	defer t.rootMu.Unlock()
	if t.rootDir != nil {
		return t.rootDir, nil
	}
	if un.Kind != unixfs.KindDir {
		t.rootDir = single{unixfs.Entry{Name: un.CID.String(), CID: un.CID}}
	} else {
		d, err := t.reader.Dir(un)
		if err != nil {
			return nil, err
		}
		t.rootDir = unixfsDir{d}
		t.rootNode().describe(un, t.cfg.FileMode)
	}
	t.rootKnown.Store(true)
	return t.rootDir, nil
}

func (t *tree) rootNode() *node { return t.table.get(fuse.FUSE_ROOT_ID) }

// datasetOf is the dataset of an entry of a directory.
func (t *tree) datasetOf(parent *node, e unixfs.Entry) cid.Cid {
	if !t.cfg.Root.Defined() && parent.parent == nil {
		return e.CID
	}
	return parent.dataset(t.cfg.Root)
}

// nodeOf makes the node of an entry, not yet in the table.
func (t *tree) nodeOf(parent *node, name string, un *unixfs.Node) *node {
	n := &node{parent: parent, name: name, cid: un.CID, kind: un.Kind}
	n.describe(un, t.cfg.FileMode)
	return n
}
