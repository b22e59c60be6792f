package node

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/uploader"
	"github.com/holdfastfs/holdfast/uploader/dataset"
)

// expiredEvery is how often one who waits for an upload directory has it looked for what nobody keeps any more.
const expiredEvery = time.Second

// expired lists the groups that are kept no longer because their time is over.
func (g *groupNews) expired() map[dataset.GroupID]bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make(map[dataset.GroupID]bool)
	for id, f := range g.open {
		if id[6] == uploadedGroup && isExpired(f) {
			all[groupOf(id)] = true
		}
	}
	return all
}

// onlyExpired says whether nothing else is open.
func (g *groupNews) onlyExpired() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, f := range g.open {
		if id[6] == uploadedGroup && !isExpired(f) {
			return false
		}
	}
	return len(g.open) > 0
}

func isExpired(f uploader.FileStatus) bool {
	return f.State == uploader.Failed && !f.Cancelled && f.Reason == uploader.ReasonExpired
}

// expiry looks for what of a directory is not waited for any more.
type expiry struct {
	u      *uploadDir
	looked time.Time
	alone  int // looks in a row at which there was nothing else
}

// check fails once nothing is left to wait for but what has expired. It looks now and then.
func (e *expiry) check(ctx context.Context, s dataset.State) error {
	if time.Since(e.looked) < expiredEvery {
		return nil
	}
	e.looked = time.Now()
	groups := e.u.sink.news.expired()
	if len(groups) == 0 || !s.Given && (s.Busy > 0 || !e.u.sink.news.onlyExpired()) {
		e.alone = 0
		return nil
	}
	if e.alone++; !s.Given && e.alone < 3 { // what was made just now may not be at the uploader
		return nil
	}
	return e.u.expiredError(ctx, groups)
}

// expiredError tells how many files have blocks in groups that expired.
func (u *uploadDir) expiredError(ctx context.Context, groups map[dataset.GroupID]bool) error {
	counting, cancel := context.WithTimeout(ctx, countFor)
	defer cancel()
	files := 0
	err := u.files(counting, "", func(ctx context.Context, f stagedFile) error {
		s, err := u.set.File(ctx, dataset.FileID(f.ID))
		if err != nil {
			return nil // there is nothing of it that could expire
		}
		for _, g := range s.Groups {
			if groups[g] {
				files++
				break
			}
		}
		return context.Cause(ctx)
	})
	what := fmt.Sprintf("%d files have", files)
	switch {
	case err != nil && counting.Err() != nil && ctx.Err() == nil:
		what = fmt.Sprintf("%d files or more have", files)
	case err != nil:
		return err
	case files == 1:
		what = "one file has"
	case files == 0:
		what = "what holds directories has"
	}
	return &api.Error{Code: api.CodeFailed, Message: what + " expired: providers need not keep it any more",
		Advice: fmt.Sprintf("holdfast uploads retry %s uploads it anew; --auto-renew has it renewed in time", u.dir)}
}

// restageLost has what of the directory's groups can't be rebuilt any more read from the staging tree again.
func (u *uploadDir) restageLost(ctx context.Context) error {
	var ids []dataset.GroupID
	err := u.set.LostGroups(ctx, func(id dataset.GroupID) bool {
		ids = append(ids, id)
		return true
	})
	for _, id := range ids {
		var f uploader.FileStatus
		var lost bool
		if err == nil {
			f, err = u.n.uploader.Status(ctx, u.sink.file(uploadedGroup, uint64(id)))
		}
		if err == nil && !isExpired(f) {
			lost, err = u.sink.unreadable(ctx, f)
		}
		if err = notThere(err); err == nil && lost {
			err = u.set.Restage(ctx, id)
		}
	}
	u.set.Hurry()
	u.changed()
	return err
}
