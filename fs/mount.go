package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/holdfastfs/holdfast/fs/unixfs"
	"golang.org/x/sys/unix"
)

const (
	// maxBackground is how many readahead requests the kernel keeps with us at once. Each that waits for a lost block
	// stays till the timeout, and others must not queue behind them.
	maxBackground = 128

	// kernelReadahead is what the kernel may read ahead on the mount, in KiB. Its default of 128 halves the speed of
	// sequential reads served from memory.
	kernelReadahead = 4096

	unmountRetry = 50 * time.Millisecond
	unmountTries = 20

	// endPatience is how long a mount that has left its directory may take to end.
	endPatience = 5 * time.Second
)

// Mounted is a mount that this process serves.
type Mounted struct {
	dir    string
	device string // its number in the mount table
	fs     fileSystem
	server *fuse.Server
	gone   chan struct{} // closed when the kernel has let go and every goroutine of the mount has ended
}

// fileSystem is what answers behind a mount.
type fileSystem interface {
	fuse.RawFileSystem
	requestWaits() *waits // requests that may have to be ended
	shutdown()            // fails every request that waits, now and later
	resume()              // takes a shutdown back, unless letGo was called
	letGo()               // the kernel has ended the connection
	finish()              // after letGo and the last request: waits for all goroutines
	panicked(any) fuse.Status
	figures() Stats
}

// Mount mounts cfg.Root on dir and returns when the mount answers; it is served until it is unmounted, by whom it may
// be. A dead mount of ours at dir is removed first. Unless cfg.Lazy, the root's block must be had within cfg.Timeout
// and ctx. This process must not use the mount itself.
func Mount(ctx context.Context, dir string, cfg Config) (*Mounted, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	name, file, err := prepareMountPoint(ctx, dir)
	if err != nil {
		return nil, err
	}
	t := newTree(cfg, uint32(os.Geteuid()), uint32(os.Getegid()), file)
	if err := t.begin(ctx, name, file); err != nil {
		return nil, err
	}
	fd, err := openDevice(ctx, mountRequest{dir: name, file: file, fsName: cfg.FsName, allowOther: cfg.AllowOther,
		device: "/dev/fuse", helpers: helperPaths})
	if err != nil {
		return nil, err
	}
	m, err := serve(ctx, name, t, cfg.Logger, fd, fuse.MountOptions{EnableSymlinkCaching: true, ExplicitDataCacheControl: true})
	if err != nil {
		return nil, err
	}
	if !cfg.NoPassthrough {
		t.through.probe(m.server, cfg.Logger)
	}
	raiseReadahead(name, cfg.Logger)
	return m, nil
}

// begin gets the root, which decides how the mount looks.
func (t *tree) begin(ctx context.Context, dir string, file bool) error {
	if !t.cfg.Root.Defined() {
		if file {
			return fmt.Errorf("mount %s: a mount of all CIDs needs a directory", dir)
		}
		t.rootKnown.Store(true)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	un, err := t.reader.Node(ctx, t.cfg.Root, t.cfg.Root)
	if err != nil && t.cfg.Lazy && !errors.Is(err, unixfs.ErrCorrupt) && !errors.Is(err, unixfs.ErrUnsupported) {
		t.log.Warn("mounting without the root", "cid", t.cfg.Root, "err", err)
		return nil
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w within %v: %w", ErrUnavailable, t.cfg.Timeout, err)
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", t.cfg.Root, err)
	}
	if !file {
		_, err = t.setRoot(un)
		return err
	}
	if un.Kind != unixfs.KindFile {
		return fmt.Errorf("mount %s: it is a %s, and the mount point %s is a file", un.CID, un.Kind, dir)
	}
	return t.setFileRoot(un)
}

// serve answers the kernel on fd, which is mounted on dir, from now on.
func serve(ctx context.Context, dir string, f fileSystem, logger *slog.Logger, fd int, opts fuse.MountOptions) (*Mounted, error) {
	m := &Mounted{dir: dir, fs: f, gone: make(chan struct{})}
	opts.MaxWrite, opts.MaxBackground, opts.DisableSplice = maxRequest, maxBackground, true
	opts.Logger, opts.PanicHandler = log.New(goFuseLog{logger}, "", 0), f.panicked
	if err := m.begin(fd, &opts); err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", dir, err), ignoreGone(detach(context.WithoutCancel(ctx), dir, true)))
	}
	if e, ok, err := topMount(dir); err == nil && ok && e.ours() {
		m.device = e.device
	}
	return m, nil
}

func (m *Mounted) begin(fd int, opts *fuse.MountOptions) error {
	watch, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		unix.Close(fd)
		return err
	}
	m.server, err = fuse.NewServer(m.fs, "/dev/fd/"+strconv.Itoa(fd), opts)
	if err != nil {
		unix.Close(watch)
		return err
	}
	go m.run(watch)
	return nil
}

// run serves until the kernel lets go, then ends whatever still waits.
func (m *Mounted) run(watch int) {
	defer close(m.gone)
	ctx, stop := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { watchDevice(ctx, watch, m.fs.requestWaits(), m.fs.letGo) })
	m.server.Serve()
	stop()
	watching.Wait()
	m.fs.letGo()
	m.fs.finish()
}

func (t *tree) requestWaits() *waits { return &t.waits }

// finish closes what the kernel left open and waits for readahead.
func (t *tree) finish() {
	t.handles.closeAll()
	t.work.Wait()
}

// letGo ends all waiting for good: the kernel has ended the connection.
func (t *tree) letGo() {
	t.dead.Store(true)
	t.shutdown()
}

// shutdown fails every request that waits for a block, now and later.
func (t *tree) shutdown() { t.serving.Load().end() }

// resume takes a shutdown back, unless the kernel has let go.
func (t *tree) resume() {
	t.serving.Store(newServing())
	if t.dead.Load() {
		t.shutdown()
	}
}

// panicked keeps a fault in one request from taking the process down.
func (t *tree) panicked(what any) fuse.Status {
	if _, ok := t.missing.admit(fmt.Sprint("panic: ", what), time.Now()); !ok {
		return fuse.EIO
	}
	t.log.Error("request panicked", "panic", what, "stack", string(debug.Stack()))
	return fuse.EIO
}

// Dir is the mount point's absolute path.
func (m *Mounted) Dir() string { return m.dir }

// Wait returns when the mount has ended, whoever ended it.
func (m *Mounted) Wait() { <-m.gone }

// Done is closed when the mount has ended.
func (m *Mounted) Done() <-chan struct{} { return m.gone }

// Unmount ends the mount. Reads that wait for blocks fail at once. A mount in use otherwise is tried again for a
// second and then stays and answers as before; the error is ErrBusy. It is ErrBusy too where the mount has left its
// directory but stays in use from elsewhere: another mount namespace, or a directory it was bound to.
func (m *Mounted) Unmount(ctx context.Context) error {
	if m.ended() {
		return nil
	}
	if _, err := mountedAs(m.dir, m.device); err != nil {
		return fmt.Errorf("unmount %s: %w", m.dir, err) // before any read fails for it
	}
	m.fs.shutdown()
	defer m.fs.resume()
	if err := unmount(ctx, m.dir, m.device, false); err != nil {
		return err
	}
	patience := time.NewTimer(endPatience)
	defer patience.Stop()
	select {
	case <-m.gone:
		return nil
	case <-patience.C:
		return fmt.Errorf("unmount %s: %w: it is mounted in another directory or mount namespace too", m.dir, ErrBusy)
	case <-ctx.Done():
		return fmt.Errorf("unmount %s: wait for its end: %w", m.dir, ctx.Err())
	}
}

// Detach ends the mount even where it is busy: it leaves the directory tree, and programs that still use it keep what
// they have open and are served until they are done. Wait waits for them.
func (m *Mounted) Detach(ctx context.Context) error {
	if m.ended() {
		return nil
	}
	m.fs.shutdown()
	defer m.fs.resume()
	return unmount(ctx, m.dir, m.device, true)
}

func (m *Mounted) ended() bool {
	select {
	case <-m.gone:
		return true
	default:
		return false
	}
}

// Unmount ends a mount of ours that another process serves, or that nobody serves any more. With force a busy one is
// detached: see Mounted.Detach.
func Unmount(ctx context.Context, dir string, force bool) error {
	name, err := resolveDir(dir)
	if err != nil {
		return err
	}
	m, ok, err := topMount(name)
	if err != nil {
		return err
	}
	if !ok || !m.ours() {
		return fmt.Errorf("unmount %s: %w", dir, ErrNotMounted)
	}
	return unmount(ctx, name, m.device, force || dead(name))
}

// unmount takes the mount with a device number away from dir, and no other. It tries until that works, the mount proves
// busy, or ctx ends.
func unmount(ctx context.Context, dir, device string, force bool) error {
	retry := time.NewTicker(unmountRetry)
	defer retry.Stop()
	for try := 1; ; try++ {
		there, err := mountedAs(dir, device)
		if err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
		if !there {
			return nil
		}
		err = ignoreGone(detach(ctx, dir, force && try > 2))
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
		if try == unmountTries {
			return fmt.Errorf("unmount %s: %w: a program has a file open in it or its current directory there%s", dir, ErrBusy, users(dir))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("unmount %s: %w: %w", dir, ErrBusy, ctx.Err())
		case <-retry.C:
		}
	}
}

// ignoreGone takes a mount that is gone already for success.
func ignoreGone(err error) error {
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}

// goFuseLog passes on what go-fuse has to say.
type goFuseLog struct{ log *slog.Logger }

func (g goFuseLog) Write(p []byte) (int, error) {
	g.log.Debug(string(bytes.TrimSpace(p)), "op", "fuse")
	return len(p), nil
}

// Stats are the figures of a mount since it was made.
type Stats struct {
	Nodes       int    // files and directories the kernel knows now
	Open        int    // files and directories open now
	Opens       uint64 // files opened
	Passthrough uint64 // inodes handed to the kernel to read by itself
	Reads       uint64 // requests for bytes answered
	ReadBytes   uint64
	AheadBytes  uint64 // bytes asked for ahead of readers
	Failed      uint64 // requests answered EIO
	BlockGets   uint64 // blocks asked for by requests
	BlockMisses uint64 // of those, not delivered
}

// Stats gives the figures of now.
func (m *Mounted) Stats() Stats { return m.fs.figures() }

func (t *tree) figures() Stats {
	t.handles.mu.RLock()
	open := len(t.handles.open)
	t.handles.mu.RUnlock()
	return Stats{
		Nodes: t.table.size(), Open: open, Opens: t.stats.opens.Load(), Passthrough: t.stats.passthrough.Load(),
		Reads: t.stats.reads.Load(), ReadBytes: t.stats.readBytes.Load(), AheadBytes: t.stats.aheadBytes.Load(),
		Failed: t.stats.failed.Load(), BlockGets: t.blocks.gets.Load(), BlockMisses: t.blocks.misses.Load(),
	}
}
