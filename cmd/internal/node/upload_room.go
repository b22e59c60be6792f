package node

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfastfs/holdfast/fs"
	"github.com/holdfastfs/holdfast/uploader"
	"github.com/holdfastfs/holdfast/uploader/dataset"
)

const (
	// roomPart is the part of the quota that is evicted at once, at least.
	roomPart = 8
	// roomPoll is how often a write that waits for room looks for what is uploaded by now.
	roomPoll = 100 * time.Millisecond
	// tidyEvery is the time between looks at a full staging tree.
	tidyEvery = 3 * time.Second
	// roomHope is how long nothing may happen, where providers are missing, before a write is refused that waits for uploads.
	roomHope = 5 * time.Second
)

// room makes room in a staging tree by evicting what is uploaded.
type room struct {
	u       *uploadDir
	turn    chan struct{} // holds one: whoever works on it
	victims []victim      // found by the last walk, the first is to go last
	tidied  time.Time     // when files were last looked at before anybody waited
}

// victim is a file that may be evicted, if it is uploaded.
type victim struct {
	fs.File
	used  int64 // when it was read or written last, in Unix nanoseconds
	bytes int64 // that it takes
}

func newRoom(u *uploadDir) *room { return &room{u: u, turn: make(chan struct{}, 1)} }

// make evicts files, and waits for such as are being uploaded. It says whether there may be room now.
func (r *room) make(ctx context.Context, bytes int64) bool {
	if !r.take(ctx) {
		return false
	}
	defer func() { <-r.turn }()
	if free, _ := r.free(); free >= bytes { // whose turn was before made it; others may have reserved it
		r.u.sleepFor(ctx, roomPoll/10)
		return true
	}
	h := hope{u: r.u, changed: time.Now()}
	for h.left(ctx) {
		if h.worthATry() {
			freed, err := r.evict(ctx, bytes)
			if err != nil && ctx.Err() == nil {
				r.u.n.log.Error("no file can be evicted", "path", r.u.dir, "error", err)
				return false
			}
			if freed > 0 {
				return true
			}
		}
		r.u.sleepFor(ctx, roomPoll)
	}
	return false
}

func (r *room) take(ctx context.Context) bool {
	select {
	case r.turn <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// tidy evicts before anybody waits: from three quarters of the quota down to a half.
func (r *room) tidy(ctx context.Context) {
	free, quota := r.free()
	if quota == 0 || free > quota/4 {
		return
	}
	select {
	case r.turn <- struct{}{}:
	default:
		return // somebody waits for room, and maybe for us
	}
	defer func() { <-r.turn }()
	if time.Since(r.tidied) < tidyEvery {
		return
	}
	defer func() { r.tidied = time.Now() }()
	if _, err := r.evict(ctx, quota/2-free); err != nil && ctx.Err() == nil {
		r.u.n.log.Error("no file can be evicted", "path", r.u.dir, "error", err)
	}
}

// free is the room that there is, and the quota, 0 for none.
func (r *room) free() (free, quota int64) {
	r.u.mu.Lock()
	m := r.u.mount
	r.u.mu.Unlock()
	if m == nil {
		return 0, 0
	}
	used, quota := m.Staged()
	return max(0, quota-used), quota
}

// evict takes away the bytes of files that are uploaded, those used last at last, until so many bytes are free or none
// is left. It returns how many were freed.
func (r *room) evict(ctx context.Context, bytes int64) (freed int64, err error) {
	r.u.mu.Lock()
	m := r.u.mount
	r.u.mu.Unlock()
	if m == nil {
		return 0, nil
	}
	_, quota := m.Staged()
	bytes = max(bytes, quota/roomPart)
	s, err := r.u.set.State(ctx)
	if err != nil || s.Placed.ID == 0 {
		return 0, err
	}
	for walked := false; freed < bytes; {
		if len(r.victims) == 0 {
			if walked {
				break
			}
			walked = true
			if err := r.walk(ctx); err != nil {
				return freed, err
			}
			continue
		}
		last := len(r.victims) - 1
		v := r.victims[last]
		r.victims = r.victims[:last]
		done, err := r.evictOne(ctx, m, v, s.Placed)
		if err != nil {
			return freed, err
		}
		if done {
			freed += v.bytes
		}
	}
	return freed, nil
}

// walk finds all that has staged bytes.
func (r *room) walk(ctx context.Context) error {
	r.victims = r.victims[:0]
	err := r.u.files(ctx, "", func(_ context.Context, f stagedFile) error {
		if f.ID != (fs.FileID{}) && f.blocks > 0 {
			r.victims = append(r.victims, victim{File: f.File, used: max(f.used, f.Version.ModTime), bytes: f.blocks})
		}
		return nil
	})
	slices.SortFunc(r.victims, func(a, b victim) int { return cmp.Compare(b.used, a.used) })
	return err
}

// evictOne evicts a file if providers have all of it in the version that is staged, and the manifest that they have
// tells where.
func (r *room) evictOne(ctx context.Context, m *fs.Upload, v victim, placed dataset.Manifest) (bool, error) {
	f, err := r.u.set.File(ctx, dataset.FileID(v.ID))
	if errors.Is(err, dataset.ErrGone) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !f.CID.Defined() || f.Closed || f.Placed != f.Blocks || f.Version != setVersion(v.Version) || r.u.withheld.has(v.ID) ||
		slices.ContainsFunc(f.Groups, func(g dataset.GroupID) bool { return uint64(g) > uint64(placed.ID) }) {
		return false, nil
	}
	for _, g := range f.Groups { // what was placed once may be with nobody now: this is the last copy then
		if safe, err := r.u.sink.safe(ctx, g); err != nil || !safe {
			return false, err
		}
	}
	err = m.Evict(ctx, v.File, f.CID)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrBusy), errors.Is(err, fs.ErrChanged), errors.Is(err, fs.ErrEvicted), errors.Is(err, fs.ErrNotFound):
		return false, nil
	}
	return false, err
}

// hope says whether waiting for uploads makes sense.
type hope struct {
	u       *uploadDir
	now     hopeMark
	changed time.Time          // when now did
	hurried time.Time          // when the dataset was told to
	tried   dataset.ManifestID // what was placed when files were last looked at
	triedAt time.Time
	ended   bool // all is uploaded: what can't be evicted now never can
}

// hopeMark is what changes while uploads go on.
type hopeMark struct {
	placed         dataset.ManifestID
	unplaced, busy int
	signed, open   int
	root           string
}

// left says whether anything is on its way, or something has happened a short while ago.
func (h *hope) left(ctx context.Context) bool {
	if ctx.Err() != nil || h.ended {
		return false
	}
	s, err := h.u.set.State(ctx)
	if err != nil {
		return false
	}
	stats, err := h.u.n.uploader.Stats(ctx)
	if err != nil {
		return false
	}
	now := hopeMark{placed: s.Placed.ID, unplaced: s.Unplaced, busy: s.Busy, signed: stats.Links[uploader.LinkSigned], root: s.Root.String()}
	for state, n := range stats.Links {
		if state != uploader.LinkSigned && state != uploader.LinkFailed {
			now.open += n
		}
	}
	if now != h.now {
		h.now, h.changed = now, time.Now()
	}
	h.ended = s.Synced
	if !s.Given && time.Since(h.hurried) > roomHope/2 {
		h.hurried = time.Now()
		h.u.set.Hurry() // what was closed just now would wait for a quiet time
		h.u.changed()
	}
	// Chunks that wait, and none on its way: for providers that may never come.
	// Of what was placed once and is lost, only what is being placed again.
	return s.Synced || now.open > 0 || !s.Given && stats.Waiting == 0 || time.Since(h.changed) < roomHope
}

// worthATry says whether files may be evicted that could not be a moment ago: mostly only when a manifest was placed.
func (h *hope) worthATry() bool {
	if h.now.placed == h.tried && time.Since(h.triedAt) < roomHope/2 {
		return false
	}
	h.tried, h.triedAt = h.now.placed, time.Now()
	return true
}

// sleepFor waits, or returns when ctx ends.
func (u *uploadDir) sleepFor(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// usedAt is when a file was read last.
func usedAt(st *unix.Statx_t) int64 { return st.Atime.Sec*1e9 + int64(st.Atime.Nsec) }
