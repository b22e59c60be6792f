package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
	"github.com/holdfastfs/holdfast/fs"
	"github.com/holdfastfs/holdfast/fs/unixfs"
	"github.com/holdfastfs/holdfast/uploader"
	"github.com/holdfastfs/holdfast/uploader/dataset"
)

// What an upload directory does where nobody says otherwise.
var defaultUpload = api.UploadRequest{Protect: api.Protection{K: 4, M: 2}, Lifetime: 30 * 24 * time.Hour}

const (
	// workRetry is the pause after work on a dataset has failed.
	workRetry = time.Second
	// workPause is the time between passes over a dataset while nobody waits: what happens meanwhile is done together.
	workPause = 75 * time.Millisecond
)

// uploadDir is an upload directory that is mounted: its staging tree, and the dataset that is made of it and uploaded.
type uploadDir struct {
	n    *Node
	req  api.UploadRequest
	dir  string
	root *os.Root // staging
	set  *dataset.Dataset
	sink *uploadSink

	withheld *withheld
	room     *room
	reader   *unixfs.Reader // of evicted files

	wake      chan struct{}   // has room for one: something has changed
	urgent    chan struct{}   // has room for one: somebody waits
	toldFull  time.Time       // when it was last said that the store is full; the work's own
	ctx       context.Context // of the work on it
	stop      context.CancelFunc
	begun     atomic.Bool
	unmounted chan struct{} // closed when its mount has ended
	stopped   chan struct{} // closed when nothing works on it any more
	gone      chan struct{} // closed when another may have its name

	mu    sync.Mutex // guards what follows
	mount *fs.Upload // nil until it answers
	left  bool       // it is not mounted any more, and what is in it goes up
	paths *pathTree

	placed   cid.Cid   // the root that providers have
	placedAt time.Time // when that was asked
}

// uploads are the upload directories that are mounted.
type uploads struct {
	mu sync.Mutex // guards byName
	// byName has them by name: one staging directory has one mount.
	byName map[string]*uploadDir
}

// openUpload opens the staging tree and the dataset of an upload directory.
func (n *Node) openUpload(ctx context.Context, dir string, req api.UploadRequest) (_ *uploadDir, err error) {
	if err := checkUpload(req); err != nil {
		return nil, err
	}
	prefix := append(append([]byte{}, repo.PrefixDatasets...), req.Name+"\x00"...)
	if req.Protect == (api.Protection{}) { // as it was, if it was
		if req.Protect.K, req.Protect.M, err = dataset.Code(ctx, n.cfg.Repo.DB, prefix); err != nil {
			return nil, fmt.Errorf("open upload directory: %w", err)
		}
	}
	if req.Protect == (api.Protection{}) {
		req.Protect = defaultUpload.Protect
	}
	if req.Lifetime == 0 {
		req.Lifetime = defaultUpload.Lifetime
	}
	if req.Name == "" || req.Name != filepath.Base(req.Name) || req.Name == "." || req.Name == ".." || len(req.Name) > 128 {
		return nil, &api.Error{Code: api.CodeUsage, Message: fmt.Sprintf("%q is no name for an upload directory", req.Name)}
	}
	u := &uploadDir{n: n, req: req, dir: dir, wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1), unmounted: make(chan struct{}), stopped: make(chan struct{}),
		gone: make(chan struct{}), paths: newPathTree()}
	u.room, u.reader = newRoom(u), unixfs.NewReader(uploadBlocks{n.blocks, u}, unixfs.Config{Logger: n.log})
	u.ctx, u.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := n.uploadDirs.add(ctx, req.Name, u); err != nil {
		u.stop()
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, u.abandon())
		}
	}()
	staging := n.stagingDir(req.Name)
	if err := os.MkdirAll(staging, 0o700); err != nil {
		return nil, fmt.Errorf("make staging directory: %w", err)
	}
	if u.root, err = os.OpenRoot(staging); err != nil {
		return nil, fmt.Errorf("open staging directory: %w", err)
	}
	u.sink, err = openUploadSink(ctx, u)
	if err == nil {
		u.withheld, err = openWithheld(ctx, u.sink.store, u.sink.key.ChildString("cancelled"))
	}
	if err != nil {
		return nil, err
	}
	set, err := dataset.Open(ctx, dataset.Config{DB: n.cfg.Repo.DB, Prefix: prefix, Store: fullStore{uploadStore{u}}, Staging: u, Sink: fullSink{u.sink},
		Data: req.Protect.K, Parity: req.Protect.M, MostPending: n.mostPending(), Temporary: fs.Temporary(u.tempNames()), Flush: n.store.Sync})
	u.mu.Lock() // lent files are looked for already
	u.set = set
	u.mu.Unlock()
	if errors.Is(err, dataset.ErrCode) {
		k, m, _ := dataset.Code(ctx, n.cfg.Repo.DB, prefix)
		err = &api.Error{Code: api.CodeUsage, Message: fmt.Sprintf("upload directory %q is protected by %s, not by %s", req.Name, api.Protection{K: k, M: m}, req.Protect),
			Advice: "leave --protect out, or choose another --name"}
	}
	return u, err
}

func (n *Node) stagingDir(name string) string {
	return filepath.Join(n.cfg.Repo.Dir, "staging", name)
}

// add takes a name. One that is not mounted any more, but still worked on, gives way.
func (us *uploads) add(ctx context.Context, name string, u *uploadDir) error {
	for {
		us.mu.Lock()
		old := us.byName[name]
		if old == nil {
			if us.byName == nil {
				us.byName = make(map[string]*uploadDir)
			}
			us.byName[name] = u
			us.mu.Unlock()
			return nil
		}
		us.mu.Unlock()
		if !old.hasLeft() {
			return &api.Error{Code: api.CodeBusy, Message: fmt.Sprintf("upload directory %q is mounted on %s", name, old.dir), Advice: "choose another --name"}
		}
		old.stop()
		select {
		case <-old.gone:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (us *uploads) remove(name string) {
	us.mu.Lock()
	defer us.mu.Unlock()
	delete(us.byName, name)
}

// stopAll ends the work on all upload directories, also on those whose mounts programs hold on to.
func (us *uploads) stopAll() {
	us.mu.Lock()
	all := slices.Collect(maps.Values(us.byName))
	us.mu.Unlock()
	for _, u := range all {
		u.stop()
		<-u.gone
	}
}

// list returns those that are worked on.
func (us *uploads) list() (all []*uploadDir) {
	us.mu.Lock()
	defer us.mu.Unlock()
	for _, u := range us.byName {
		if u.begun.Load() {
			all = append(all, u)
		}
	}
	return all
}

// find returns the upload directory that is mounted on dir.
func (us *uploads) find(dir string) *uploadDir {
	us.mu.Lock()
	defer us.mu.Unlock()
	for _, u := range us.byName {
		if u.dir == dir && !u.hasLeft() {
			return u
		}
	}
	return nil
}

// mountUpload mounts an upload directory, and begins to work on it.
func (n *Node) mountUpload(ctx context.Context, req api.MountRequest) (*fs.Mounted, error) {
	u, err := n.openUpload(ctx, req.Dir, *req.Upload)
	if err != nil {
		return nil, err
	}
	timeout := n.cfg.Settings.Timeout
	if req.Timeout > 0 {
		timeout = req.Timeout
	}
	if err := n.rememberUpload(u.req); err != nil {
		return nil, errors.Join(err, u.abandon())
	}
	m, err := fs.MountUpload(ctx, req.Dir, fs.UploadConfig{Staging: n.stagingDir(u.req.Name), Uploads: u, Blocks: uploadBlocks{n.blocks, u},
		QuotaBytes: u.req.StagingQuota, TempNames: u.tempNames(), MakeRoom: u.room.make, Timeout: timeout, AllowOther: req.AllowOther, NoPassthrough: req.NoPassthrough,
		FsName: "holdfast:" + u.req.Name, Logger: n.log})
	if err != nil {
		return nil, errors.Join(err, u.abandon())
	}
	u.mu.Lock()
	u.mount = m
	u.mu.Unlock()
	u.begin(m)
	return m.Mounted, nil
}

// abandon ends a directory that was opened and is not begun.
func (u *uploadDir) abandon() (err error) {
	u.stop()
	if u.root != nil {
		err = u.root.Close()
	}
	u.n.uploadDirs.remove(u.req.Name)
	close(u.stopped)
	close(u.gone)
	return err
}

// work does what is due on the dataset until ctx ends, or the directory is mounted no more and all of it is with providers.
func (u *uploadDir) work(ctx context.Context) {
	defer close(u.stopped)
	ctx, cancel := context.WithCancel(ctx)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		u.sink.watch(ctx)
	}()
	defer func() { <-watching }()
	defer cancel()
	for ctx.Err() == nil {
		next, err := u.set.Work(ctx, time.Now())
		if err != nil && ctx.Err() == nil {
			u.n.log.Warn("work on an upload directory failed, trying on", "path", u.dir, "error", err)
			next = time.Now().Add(workRetry)
		}
		if err == nil && u.hasLeft() && u.finished(ctx) {
			return
		}
		u.tellFull()
		u.room.tidy(ctx)
		u.pause(ctx)
		u.sleep(ctx, next)
	}
}

// sleep waits until next, or something changes. A zero next is any time.
func (u *uploadDir) sleep(ctx context.Context, next time.Time) {
	var at <-chan time.Time
	if !next.IsZero() {
		t := time.NewTimer(max(0, time.Until(next)))
		defer t.Stop()
		at = t.C
	}
	select {
	case <-ctx.Done():
	case <-u.wake:
	case <-at:
	}
}

// pause waits a moment, unless somebody waits for the work.
func (u *uploadDir) pause(ctx context.Context) {
	if u.set.Hurried() {
		return
	}
	t := time.NewTimer(workPause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-u.urgent:
	case <-t.C:
	}
}

// changed has the work go on.
func (u *uploadDir) changed() {
	tell := func(c chan struct{}) {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	tell(u.wake)
	if u.set.Hurried() {
		tell(u.urgent)
	}
}

// policy is how providers keep what is in the directory.
func (u *uploadDir) policy() uploader.Policy {
	return uploader.Policy{Redundancy: u.req.Redundancy, Lifetime: u.req.Lifetime, AutoRenew: u.req.AutoRenew}
}

// Sync waits until all that is in an upload directory is with providers, and tells how far that is meanwhile.
func (n *Node) Sync(ctx context.Context, dir string, told func(api.SyncProgress)) (api.Synced, error) {
	u, err := n.uploadAt(dir)
	if err != nil {
		return api.Synced{}, err
	}
	u.mu.Lock()
	m := u.mount
	u.mu.Unlock()
	if m != nil {
		m.EndWaits()
		if err := m.Settle(ctx); err != nil {
			return api.Synced{}, answer(err)
		}
	}
	u.set.Hurry()
	u.changed()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last time.Time
	expiry := expiry{u: u}
	for {
		s, err := u.set.State(ctx)
		if err != nil {
			return api.Synced{}, answer(err)
		}
		if s.Synced {
			return u.synced(ctx, s)
		}
		if err := expiry.check(ctx, s); err != nil {
			return api.Synced{}, answer(err)
		}
		if told != nil && time.Since(last) >= syncProgressEvery {
			p, err := u.progress(s)
			if err != nil {
				return api.Synced{}, answer(err)
			}
			told(p)
			last = time.Now()
		}
		select {
		case <-ctx.Done():
			return api.Synced{}, answer(context.Cause(ctx))
		case <-u.stopped:
			return api.Synced{}, &api.Error{Code: api.CodeCanceled, Message: "it is not mounted any more"}
		case <-tick.C:
		}
	}
}

func (u *uploadDir) synced(ctx context.Context, s dataset.State) (api.Synced, error) {
	out := api.Synced{Root: s.Placed.Root.String(), Manifest: s.Placed.CID.String()}
	all, err := u.n.uploader.Uploads(ctx)
	if err != nil {
		return out, answer(err)
	}
	for _, f := range all {
		if u.sink.owns(f.ID) && f.Expiry > 0 && (out.Expires == nil || f.Expiry < out.Expires.Unix()) {
			at := time.Unix(f.Expiry, 0)
			out.Expires = &at
		}
	}
	return out, nil
}

func savedUpload(r *api.UploadRequest) *repo.SavedUpload {
	if r == nil {
		return nil
	}
	return &repo.SavedUpload{Name: r.Name, K: r.Protect.K, M: r.Protect.M, Redundancy: r.Redundancy, Lifetime: r.Lifetime, AutoRenew: r.AutoRenew,
		StagingQuota: r.StagingQuota, TempNames: r.TempNames}
}

func restoredUpload(s *repo.SavedUpload) *api.UploadRequest {
	if s == nil {
		return nil
	}
	return &api.UploadRequest{Name: s.Name, Protect: api.Protection{K: s.K, M: s.M}, Redundancy: s.Redundancy, Lifetime: s.Lifetime, AutoRenew: s.AutoRenew,
		StagingQuota: s.StagingQuota, TempNames: s.TempNames}
}
