package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
	"github.com/holdfastfs/holdfast/fs"
)

// takeDown is how long the mounts have to end when the node does.
const takeDown = 20 * time.Second

// stateMounting is the state of a mount that does not answer yet.
const stateMounting = "mounting"

// mounts are the file systems that the node serves.
type mounts struct {
	n *Node

	mu      sync.Mutex // guards what follows
	closed  bool
	byDir   map[string]*mount
	changed chan struct{} // closed when the table changes, and replaced

	forgetting sync.WaitGroup // of ended mounts; joined under mu unless closed
}

// mount is one of them, or one that is to be.
type mount struct {
	req   api.MountRequest
	fs    *fs.Mounted // nil: not mounted
	state string
	since time.Time
	ended bool // it is being forgotten
}

func newMounts(n *Node) *mounts {
	return &mounts{n: n, byDir: make(map[string]*mount), changed: make(chan struct{})}
}

// changeLocked tells who waits that the table is another.
func (m *mounts) changeLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// Run restores a daemon's mounts and, when ctx ends, takes all down.
func (m *mounts) Run(ctx context.Context) error {
	var restoring sync.WaitGroup
	if m.n.cfg.Daemon {
		saved, err := m.n.cfg.Repo.Mounts()
		if err != nil {
			m.n.log.Error("mounts are not restored", "error", err)
		}
		for _, s := range saved {
			restoring.Go(func() { m.restore(ctx, s) })
		}
		m.n.resumeUploads(ctx, saved)
	}
	<-ctx.Done()
	restoring.Wait()
	m.closeAll()
	m.n.uploadDirs.stopAll()
	return nil
}

// closeAll ends every mount, those in use too, and lets nobody mount any more. They stay remembered.
func (m *mounts) closeAll() {
	m.mu.Lock()
	m.closed = true
	var open []*fs.Mounted
	for _, mnt := range m.byDir {
		if mnt.fs != nil {
			open = append(open, mnt.fs)
		}
	}
	m.mu.Unlock()
	m.forgetting.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), takeDown)
	defer cancel()
	var ending sync.WaitGroup
	for _, f := range open {
		ending.Go(func() {
			if err := takeOut(ctx, f); err != nil {
				m.n.log.Error("mount is left", "path", f.Dir(), "error", err)
			}
		})
	}
	ending.Wait()
}

// takeOut ends a mount, or where programs use it leaves it to them: they keep what they have open.
func takeOut(ctx context.Context, f *fs.Mounted) error {
	err := f.Unmount(ctx)
	if errors.Is(err, fs.ErrBusy) {
		err = f.Detach(ctx)
	}
	return err
}

// reserve takes a directory for a mount about to be made.
func (m *mounts) reserve(req api.MountRequest) (*mount, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, &api.Error{Code: api.CodeCanceled, Message: "the node is stopping"}
	}
	if old := m.byDir[req.Dir]; old != nil && (old.fs != nil || old.state == stateMounting) {
		return nil, &api.Error{Code: api.CodeBusy, Message: fmt.Sprintf("%s is %s already", req.Dir, old.state),
			Advice: "holdfast umount " + req.Dir + " ends that"}
	}
	mnt := &mount{req: req, state: stateMounting, since: time.Now()}
	m.byDir[req.Dir] = mnt
	return mnt, nil
}

// drop takes a mount from the table.
func (m *mounts) drop(mnt *mount) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byDir[mnt.req.Dir] == mnt {
		delete(m.byDir, mnt.req.Dir)
	}
	m.changeLocked()
}

// Mount mounts and returns when it answers.
func (n *Node) Mount(ctx context.Context, req api.MountRequest) (api.Mount, error) {
	dir, err := resolveParent(req.Dir)
	if err != nil {
		return api.Mount{}, answer(err)
	}
	req.Dir = dir
	cfg, err := n.mountConfig(req)
	if err != nil {
		return api.Mount{}, answer(err)
	}
	if err := n.mountRoot(ctx, &cfg, req.Spending); err != nil {
		return api.Mount{}, answer(err)
	}
	mnt, err := n.mounts.reserve(req)
	if err != nil {
		return api.Mount{}, err
	}
	var f *fs.Mounted
	if req.Upload != nil {
		f, err = n.mountUpload(ctx, req)
	} else {
		f, err = fs.Mount(ctx, req.Dir, cfg)
	}
	if err == nil && ctx.Err() != nil { // who asked is gone
		err = errors.Join(context.Cause(ctx), takeOut(context.WithoutCancel(ctx), f))
	}
	if err == nil && req.Remember && n.cfg.Daemon {
		err = n.cfg.Repo.SaveMount(repo.SavedMount{Dir: req.Dir, CID: req.CID, Upload: savedUpload(req.Upload), AllowOther: req.AllowOther,
			MaxPrice: req.MaxPrice, Budget: req.Budget, NoPassthrough: req.NoPassthrough, Timeout: req.Timeout, Readahead: req.Readahead})
		if err != nil {
			err = errors.Join(err, takeOut(context.WithoutCancel(ctx), f))
		}
	}
	if err != nil {
		n.mounts.drop(mnt)
		return api.Mount{}, answer(err)
	}
	return n.mounts.serve(mnt, f), nil
}

// serve puts a mount that answers into the table until it ends.
func (m *mounts) serve(mnt *mount, f *fs.Mounted) api.Mount {
	m.mu.Lock()
	defer m.mu.Unlock()
	mnt.fs, mnt.state, mnt.since = f, api.StateMounted, time.Now()
	m.n.log.Info("mounted", "path", mnt.req.Dir, "cid", mnt.req.CID)
	m.changeLocked()
	go func() { // ends with the mount, which may be after the node: programs can hold on to it
		f.Wait()
		m.ended(mnt)
	}()
	return mnt.describe()
}

// ended takes a mount that is gone from the table; unless the node stops, whoever ended it wants it no more.
func (m *mounts) ended(mnt *mount) {
	m.mu.Lock()
	if m.closed || mnt.ended || m.byDir[mnt.req.Dir] != mnt {
		m.mu.Unlock()
		return
	}
	mnt.ended = true
	m.forgetting.Add(1)
	m.mu.Unlock()
	defer m.forgetting.Done()
	if mnt.req.Remember {
		if err := m.n.cfg.Repo.ForgetMount(mnt.req.Dir); err != nil {
			m.n.log.Error("ended mount is still remembered", "path", mnt.req.Dir, "error", err)
		}
	}
	m.drop(mnt)
	m.n.log.Info("unmounted", "path", mnt.req.Dir)
}

// mountConfig is what fs needs to know for a request.
func (n *Node) mountConfig(req api.MountRequest) (fs.Config, error) {
	cfg := fs.Config{Blocks: n.blocks, Timeout: n.cfg.Settings.Timeout, ReadaheadBytes: n.cfg.Settings.Readahead,
		Lazy: req.Lazy, AllowOther: req.AllowOther, NoPassthrough: req.NoPassthrough, Logger: n.log, Statfs: n.usage}
	if req.Timeout > 0 {
		cfg.Timeout = req.Timeout
	}
	if req.Readahead > 0 {
		cfg.ReadaheadBytes = req.Readahead
	}
	if req.CID == "" {
		cfg.StandsFor = func(ctx context.Context, c cid.Cid) (cid.Cid, error) {
			root, err := n.rootOf(ctx, c)
			if err != nil {
				return cid.Undef, fsError(ctx, c, err)
			}
			return root, nil
		}
		return cfg, nil
	}
	root, err := api.ParseCID(req.CID)
	if err != nil {
		return cfg, err
	}
	if root.Type() != cid.Raw && root.Type() != cid.DagProtobuf && !isManifest(root) {
		return cfg, &api.Error{Code: api.CodeUnsupported, Message: fmt.Sprintf("%s is neither file nor directory", root)}
	}
	cfg.Root = root
	return cfg, nil
}

// mountRoot finds what a mount shows, where it is named by a manifest, and lets it pay for that.
func (n *Node) mountRoot(ctx context.Context, cfg *fs.Config, s api.Spending) error {
	if !cfg.Root.Defined() {
		return n.allow(cfg.Root, s)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	root, err := n.mayRead(ctx, cfg.Root, s)
	if err != nil {
		return err
	}
	if !root.Equals(cfg.Root) {
		cfg.FsName = "holdfast:" + cfg.Root.String()
	}
	cfg.Root = root
	return nil
}

func (n *Node) usage() fs.Usage {
	s := n.store.Stats()
	return fs.Usage{TotalBytes: uint64(s.QuotaBytes), FreeBytes: uint64(max(0, s.QuotaBytes-s.UsedBytes))}
}

// resolveParent makes a path absolute and free of symbolic links, but does not look at what it names: that may be a
// mount of ours.
func resolveParent(dir string) (string, error) {
	if !filepath.IsAbs(dir) {
		return "", &api.Error{Code: api.CodeUsage, Message: fmt.Sprintf("mount point %q is no absolute path", dir)}
	}
	abs := filepath.Clean(dir)
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return abs, nil // whoever uses it says what is wrong with it
	}
	return filepath.Join(parent, filepath.Base(abs)), nil
}

// Unmount ends a mount of ours, or what a dead node left at dir.
func (n *Node) Unmount(ctx context.Context, dir string, force bool) error {
	dir, err := resolveParent(dir)
	if err != nil {
		return answer(err)
	}
	n.mounts.mu.Lock()
	mnt := n.mounts.byDir[dir]
	n.mounts.mu.Unlock()
	if mnt != nil && mnt.fs != nil {
		end := mnt.fs.Unmount
		if force {
			end = func(ctx context.Context) error { return takeOut(ctx, mnt.fs) }
		}
		if err := end(ctx); err != nil {
			return answer(err)
		}
		n.mounts.ended(mnt)
		n.uploadDirs.waitLeft(ctx, dir)
		return answer(n.mounts.wait(ctx, func() bool { return n.mounts.closed || n.mounts.byDir[dir] != mnt }))
	}
	known, err := n.forgetMount(dir, mnt)
	if err != nil {
		return answer(err)
	}
	if err := fs.Unmount(ctx, dir, force); err != nil && !(known && errors.Is(err, fs.ErrNotMounted)) {
		return answer(err)
	}
	return nil
}

// forgetMount ends the remembering of a mount that is not there.
func (n *Node) forgetMount(dir string, mnt *mount) (known bool, err error) {
	saved, err := n.cfg.Repo.Mounts()
	if err != nil {
		return false, err
	}
	known = slices.ContainsFunc(saved, func(s repo.SavedMount) bool { return s.Dir == dir })
	if known {
		err = n.cfg.Repo.ForgetMount(dir)
	}
	if mnt != nil {
		n.mounts.drop(mnt)
	}
	return known, err
}

// Mounts lists the mounts, by directory.
func (n *Node) Mounts(context.Context) ([]api.Mount, error) {
	n.mounts.mu.Lock()
	defer n.mounts.mu.Unlock()
	out := []api.Mount{}
	for _, mnt := range n.mounts.byDir {
		out = append(out, mnt.describe())
	}
	slices.SortFunc(out, func(a, b api.Mount) int { return strings.Compare(a.Dir, b.Dir) })
	return out, nil
}

// describe is called under the lock of mounts.
func (mnt *mount) describe() api.Mount {
	out := api.Mount{Dir: mnt.req.Dir, CID: mnt.req.CID, State: mnt.state, Since: mnt.since, Remembered: mnt.req.Remember}
	if mnt.req.Upload != nil {
		out.Upload = mnt.req.Upload.Name
	}
	if mnt.fs != nil {
		s := mnt.fs.Stats()
		out.Reads, out.BytesRead, out.Errors, out.Passthrough = s.Reads, s.ReadBytes, s.Failed, s.Passthrough
	}
	return out
}

// WaitUnmounted returns when dir is not mounted.
func (n *Node) WaitUnmounted(ctx context.Context, dir string) error {
	dir, err := resolveParent(dir)
	if err != nil {
		return answer(err)
	}
	return answer(n.mounts.waitGone(ctx, dir))
}

func (m *mounts) waitGone(ctx context.Context, dir string) error {
	return m.wait(ctx, func() bool { return m.byDir[dir] == nil || m.byDir[dir].fs == nil })
}

func (m *mounts) waitIdle(ctx context.Context) error {
	return m.wait(ctx, func() bool {
		for _, mnt := range m.byDir {
			if mnt.fs != nil {
				return false
			}
		}
		return true
	})
}

// wait returns when cond holds, which is asked under the lock.
func (m *mounts) wait(ctx context.Context, cond func() bool) error {
	for {
		m.mu.Lock()
		ok, changed := cond(), m.changed
		m.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
