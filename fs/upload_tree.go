package fs

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/holdfastfs/holdfast/fs/unixfs"
	"golang.org/x/sys/unix"
)

// stagedValid is how long the kernel may keep names and attributes. What is changed through the mount it knows of by
// itself; this bounds how long it takes to see what somebody changes in staging.
const stagedValid = time.Second

// uploadTree answers the kernel's requests about an upload directory.
type uploadTree struct {
	fuse.RawFileSystem // answers ENOSYS to what is not told here

	cfg      UploadConfig
	log      *slog.Logger
	missing  *missLog
	uid, gid uint32
	table    *stagedTable
	handles  uploadHandles
	quota    quota
	temps    tempNames
	leases   leases
	closings closings
	through  passthrough
	blocks   *guarded
	reader   *unixfs.Reader
	server   atomic.Pointer[fuse.Server]

	serving atomic.Pointer[serving]
	waits   waits
	dead    atomic.Bool
	work    sync.WaitGroup // bytes being brought back, late fsyncs, reports
	stats   counters

	releasing atomic.Int64 // releases under way
}

var _ fileSystem = (*uploadTree)(nil)

func newUploadTree(cfg UploadConfig, table *stagedTable, uid, gid uint32) *uploadTree {
	g, missing := newGuarded(cfg.Blocks), newMissLog(cfg.Logger)
	t := &uploadTree{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		cfg:           cfg, log: cfg.Logger, missing: missing, uid: uid, gid: gid, table: table,
		quota: quota{limit: cfg.QuotaBytes}, temps: newTempNames(cfg.TempNames), blocks: g,
		reader: unixfs.NewReader(g, unixfs.Config{Logger: slog.New(quiet{cfg.Logger.Handler(), missing})}),
	}
	t.table.drop = t.dropped
	t.handles.open = make(map[uint64]*uploadHandle)
	t.leases.init()
	t.closings.init()
	t.waits.some = make(chan struct{}, 1)
	t.serving.Store(newServing())
	return t
}

// String names the file system to go-fuse.
func (t *uploadTree) String() string { return subtype }

// Init is told of the server, by which the kernel can be told that it knows wrong.
func (t *uploadTree) Init(s *fuse.Server) { t.server.Store(s) }

func (t *uploadTree) requestWaits() *waits { return &t.waits }

func (t *uploadTree) shutdown() { t.serving.Load().end() }

func (t *uploadTree) resume() {
	t.serving.Store(newServing())
	if t.dead.Load() {
		t.shutdown()
	}
}

func (t *uploadTree) letGo() {
	t.dead.Store(true)
	t.shutdown()
}

// finish closes what the kernel left open. A file that it left open for writing is reported at the next start; one that
// waits for its rename counts as complete, as nobody can rename it any more.
func (t *uploadTree) finish() {
	t.closings.stop()
	t.work.Wait()
	t.handles.closeAll()
	t.endWaits()
	for _, n := range t.takeClosed(false) {
		t.settle(n)
		t.table.release(n)
	}
	t.leases.breakAll()
	t.table.closeAll()
}

func (t *uploadTree) panicked(what any) fuse.Status {
	if _, ok := t.missing.admit(fmt.Sprint("panic: ", what), time.Now()); !ok {
		return fuse.EIO
	}
	t.log.Error("request panicked", "panic", what, "stack", string(debug.Stack()))
	return fuse.EIO
}

func (t *uploadTree) figures() Stats {
	return Stats{
		Nodes: t.table.size(), Open: t.handles.size(), Opens: t.stats.opens.Load(), Passthrough: t.stats.passthrough.Load(),
		Reads: t.stats.reads.Load(), ReadBytes: t.stats.readBytes.Load(), Failed: t.stats.failed.Load(),
		BlockGets: t.blocks.gets.Load(), BlockMisses: t.blocks.misses.Load(),
	}
}

// call begins a request that may wait.
func (t *uploadTree) call(cancel <-chan struct{}, caller *fuse.Caller) *call {
	c := newCall(t.serving.Load().Context, cancel, caller.Pid, t.cfg.Timeout)
	c.waits = &t.waits
	return c
}

// status is the answer for an error of a request that did not wait.
func (t *uploadTree) status(op string, n *staged, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	errno, known := toErrno(err)
	if errno == syscall.EIO {
		t.stats.failed.Add(1)
	}
	if errno == syscall.EIO && !errors.Is(err, errShutdown) || !known {
		t.report(op, n, err)
	}
	return fuse.Status(errno)
}

// fail is status for a request that may have waited.
func (t *uploadTree) fail(c *call, op string, n *staged, err error) fuse.Status {
	return t.status(op, n, c.explain(err))
}

// report tells the log why a request failed, the same reason once a minute.
func (t *uploadTree) report(op string, n *staged, err error) {
	key := err.Error()
	var block *BlockError
	if errors.As(err, &block) {
		key = block.Want.CID.KeyString()
	}
	if skipped, ok := t.missing.admit(key, time.Now()); ok {
		path, _ := t.table.path(n)
		t.log.Error("request failed", "op", op, "path", path, "err", err, "skipped", skipped)
	}
}

// Lookup finds a name.
func (t *uploadTree) Lookup(_ <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	parent := t.table.get(header.NodeId)
	if parent == nil {
		return fuse.Status(syscall.ESTALE)
	}
	defer t.table.release(parent)
	var st unix.Statx_t
	n, err := t.table.child(parent, name, &st)
	if err != nil {
		return t.status("look up "+name+" in", parent, err)
	}
	t.entry(n, &st, out)
	return fuse.OK
}

// entry tells the kernel about n, whose hold becomes the kernel's reference.
func (t *uploadTree) entry(n *staged, st *unix.Statx_t, out *fuse.EntryOut) {
	*out = fuse.EntryOut{NodeId: n.id}
	t.attr(n, st, &out.Attr)
	out.SetEntryTimeout(stagedValid)
	out.SetAttrTimeout(t.attrValid(n))
	t.table.entered(n)
}

// attrValid is how long attributes of n hold: not at all while somebody may write past us.
func (t *uploadTree) attrValid(n *staged) time.Duration {
	if n.kind != syscall.S_IFREG {
		return stagedValid
	}
	n.told.Store(true) // before the question, so that a writer that comes now takes it back
	if n.unstable.Load() {
		return 0
	}
	return stagedValid
}

// retract tells the kernel to ask again for attributes that it was allowed to keep.
func (t *uploadTree) retract(n *staged) {
	if s := t.server.Load(); s != nil && n.told.Swap(false) {
		s.InodeNotify(n.id, -1, 0)
	}
}

// Forget drops references of the kernel.
func (t *uploadTree) Forget(id, count uint64) { t.table.forget(id, count) }

// dropped is told that nobody refers to n any more. The room of a file without a name is free now.
func (t *uploadTree) dropped(n *staged) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone && n.counted {
		t.quota.settle(0, -n.charged)
		n.charged, n.counted = 0, false
	}
}
