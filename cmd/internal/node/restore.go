package node

import (
	"context"
	"time"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
)

// How long a mount that can't be restored waits for the next try: doubled with each failure.
const (
	restoreMin = time.Second
	restoreMax = 30 * time.Second
)

// restore mounts what was mounted before. A failure stays in the table, for people to see, and is tried again: the
// mount point may be on a disk that is not there yet.
func (m *mounts) restore(ctx context.Context, s repo.SavedMount) {
	req := api.MountRequest{Dir: s.Dir, CID: s.CID, AllowOther: s.AllowOther, Lazy: true, Remember: true,
		Upload: restoredUpload(s.Upload), Spending: api.Spending{MaxPrice: s.MaxPrice, Budget: s.Budget}, NoPassthrough: s.NoPassthrough, Timeout: s.Timeout, Readahead: s.Readahead}
	var failed *mount
	for wait := restoreMin; ; wait = min(2*wait, restoreMax) {
		_, err := m.n.Mount(ctx, req)
		if err == nil || ctx.Err() != nil {
			return
		}
		again := &mount{req: req, state: "failed: " + err.Error(), since: time.Now()}
		if !m.note(failed, again) {
			return
		}
		if failed == nil {
			m.n.log.Error("mount is not restored, trying on", "path", s.Dir, "cid", s.CID, "error", err)
		}
		failed = again
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if !m.stands(failed) {
			return // somebody else has taken the directory, or wants the mount no more
		}
	}
}

// note puts what a restoration came to into the table, unless another mount has taken its place. The attempt itself
// has taken away what was noted before.
func (m *mounts) note(before, failed *mount) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := m.byDir[failed.req.Dir]; now != nil && now != before {
		return false
	}
	if before != nil {
		failed.since = before.since
	}
	m.byDir[failed.req.Dir] = failed
	return true
}

// stands says whether a mount is in the table.
func (m *mounts) stands(mnt *mount) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byDir[mnt.req.Dir] == mnt
}
