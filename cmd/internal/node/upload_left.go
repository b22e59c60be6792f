package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
	"github.com/holdfastfs/holdfast/fs"
	"github.com/holdfastfs/holdfast/uploader/dataset"
)

// begin works on an upload directory: until its mount m has ended, and then until all of it is with providers. Without a
// mount it is only the latter.
func (u *uploadDir) begin(m *fs.Upload) {
	u.begun.Store(true)
	go u.work(u.ctx)
	go func() { // stopAll waits for it, so it waits for no mount that outlives the work
		if m != nil {
			select {
			case <-m.Done():
			case <-u.stopped:
			}
		}
		u.mu.Lock()
		u.mount, u.left = nil, true
		u.mu.Unlock()
		close(u.unmounted)
		u.set.Hurry()
		u.changed()
		<-u.stopped
		u.stop()
		u.n.uploadDirs.remove(u.req.Name)
		if err := u.root.Close(); err != nil {
			u.n.log.Warn("close staging directory", "path", u.dir, "error", err)
		}
		close(u.gone)
	}()
}

// waitLeft returns when the end of the mount on dir was noted, or ctx has ended.
func (us *uploads) waitLeft(ctx context.Context, dir string) {
	if u := us.find(dir); u != nil {
		select {
		case <-u.unmounted:
		case <-u.gone:
		case <-ctx.Done():
		}
	}
}

// hasLeft says whether the directory is not mounted any more.
func (u *uploadDir) hasLeft() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.left
}

// finished says whether all is with providers, and then ends the remembering that something is not.
func (u *uploadDir) finished(ctx context.Context) bool {
	s, err := u.set.State(ctx)
	if err == nil && s.Given {
		err = u.n.cfg.Repo.ForgetUpload(u.req.Name)
	}
	if err != nil && ctx.Err() == nil {
		u.n.log.Warn("upload directory is still remembered", "path", u.dir, "error", err)
	}
	return err == nil && s.Given
}

// rememberUpload has a daemon go on with an upload directory where it is not mounted when it starts.
func (n *Node) rememberUpload(req api.UploadRequest) error {
	return n.cfg.Repo.SaveUpload(*savedUpload(&req))
}

// resumeUploads goes on with the upload directories that are not to be mounted, and were not done when they were last.
func (n *Node) resumeUploads(ctx context.Context, mounts []repo.SavedMount) {
	all, err := n.cfg.Repo.Uploads()
	if err != nil {
		n.log.Error("uploads don't go on", "error", err)
	}
	for _, s := range all {
		mounted := slices.ContainsFunc(mounts, func(m repo.SavedMount) bool { return m.Upload != nil && m.Upload.Name == s.Name })
		if mounted {
			continue
		}
		if err := n.resumeUpload(ctx, *restoredUpload(&s)); err != nil {
			n.log.Error("upload directory does not go up until it is mounted", "path", s.Name, "error", err)
		}
	}
}

func (n *Node) resumeUpload(ctx context.Context, req api.UploadRequest) error {
	u, err := n.openUpload(ctx, "", req)
	if err != nil {
		return err
	}
	u.left = true
	if err := u.rescan(ctx); err != nil {
		return errors.Join(err, u.abandon())
	}
	n.log.Info("upload directory goes up without its mount", "path", req.Name)
	u.begin(nil)
	return nil
}

// rescan does for a directory that is not mounted what its mount does at the start: it finds the files, and what of
// them has changed since it was told.
func (u *uploadDir) rescan(ctx context.Context) error {
	err := u.files(ctx, "", func(ctx context.Context, f stagedFile) error {
		if f.ID == (fs.FileID{}) {
			return nil // it never was closed: the next mount looks at it
		}
		v, known, err := u.Recorded(ctx, f.File)
		if err == nil && (!known || v != f.Version) {
			err = u.Closed(ctx, f.File)
		}
		return err
	})
	if err == nil || errors.Is(err, fs.ErrNotFound) {
		err = u.Scanned(ctx)
	}
	return err
}

// pendingFor is how long files are counted.
const pendingFor = 3 * time.Second

// Pending tells what of an upload directory is not with providers. Of other mounts nothing is.
func (n *Node) Pending(ctx context.Context, dir string) (api.Pending, error) {
	u, err := n.uploadAt(dir)
	if api.CodeOf(err) == api.CodeNotFound {
		return api.Pending{}, nil
	}
	if err != nil {
		return api.Pending{}, err
	}
	out := api.Pending{Upload: true, GoesOn: n.cfg.Daemon}
	counting, cancel := context.WithTimeout(ctx, pendingFor)
	defer cancel()
	u.mu.Lock()
	m := u.mount
	u.mu.Unlock()
	if m != nil {
		m.EndWaits()
		if err := m.Settle(counting); err != nil && counting.Err() == nil {
			return out, answer(err)
		}
	}
	s, err := u.set.State(ctx)
	if err != nil || s.Given {
		return out, answer(err)
	}
	err = u.files(counting, "", func(ctx context.Context, f stagedFile) error { return u.countPending(ctx, f, &out) })
	if counting.Err() != nil && ctx.Err() == nil {
		out.More, err = true, nil
	}
	out.Rest = out.Files == 0
	return out, answer(err)
}

// countPending counts a file in that is not uploaded. What was cancelled is not waited for.
func (u *uploadDir) countPending(ctx context.Context, f stagedFile, out *api.Pending) error {
	if u.withheld.has(f.ID) {
		return nil
	}
	bytes := f.Version.Bytes
	if f.ID != (fs.FileID{}) {
		s, err := u.set.File(ctx, dataset.FileID(f.ID))
		if err == nil && s.CID.Defined() && s.Placed == s.Blocks && !s.Closed {
			return nil
		}
		if err == nil && !s.Closed && s.Blocks > 0 {
			bytes -= int64(float64(bytes) * float64(s.Placed) / float64(s.Blocks))
		}
	}
	out.Files++
	out.Bytes += uint64(max(0, bytes))
	return nil
}
