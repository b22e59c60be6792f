package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/uploader"
	"github.com/holdfastfs/holdfast/uploader/dataset"
)

const (
	// countFor is how long the files of all upload directories together are counted.
	countFor = 2 * time.Second
	// syncProgressEvery is how often one who waits hears how far an upload is.
	syncProgressEvery = 500 * time.Millisecond
)

// Uploads lists upload directories, mounted or not, and what was added to be uploaded. With groups it lists what the
// uploader has of them.
func (n *Node) Uploads(ctx context.Context, groups bool) ([]api.Upload, error) {
	all, err := n.uploader.Uploads(ctx)
	if err != nil {
		return nil, answer(err)
	}
	out := []api.Upload{}
	if groups {
		for _, f := range all {
			out = append(out, uploadAs(f))
		}
		return out, nil
	}
	dirs, err := n.uploadNames()
	if err != nil {
		return nil, answer(err)
	}
	sums := make(map[[6]byte]*newsSum)
	for _, name := range dirs {
		sums[uploadedBy(name)] = &newsSum{FileStatus: uploader.FileStatus{State: uploader.Uploaded, Name: name}}
	}
	var added []api.Upload
	for _, f := range all {
		if sum := sums[[6]byte(f.ID[:6])]; sum != nil {
			sum.add(f)
		} else {
			added = append(added, uploadAs(f))
		}
	}
	counting, cancel := context.WithTimeout(ctx, countFor)
	defer cancel()
	for _, name := range dirs {
		one, err := n.uploadDirectory(ctx, counting, sums[uploadedBy(name)].FileStatus)
		if err != nil {
			return nil, answer(err)
		}
		out = append(out, one)
	}
	return append(out, added...), nil
}

func uploadAs(f uploader.FileStatus) api.Upload {
	one := api.Upload{ID: f.ID.String(), Name: f.Name, State: f.State.String(), Text: f.String(), Reason: f.Reason, Bytes: f.Bytes, Done: f.Done}
	if f.Expiry > 0 {
		at := time.Unix(f.Expiry, 0)
		one.Expiry = &at
	}
	return one
}

// uploadNames lists the names of all upload directories that there are: those that have a staging tree.
func (n *Node) uploadNames() (names []string, err error) {
	all, err := os.ReadDir(filepath.Dir(n.stagingDir("x")))
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return nil, fmt.Errorf("list upload directories: %w", err)
	}
	for _, e := range all {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// uploadDirectory describes an upload directory, of whose groups sum is what the uploader says. Its files are counted as
// long as counting lasts.
func (n *Node) uploadDirectory(ctx, counting context.Context, sum uploader.FileStatus) (api.Upload, error) {
	dir := &api.UploadDirectory{}
	u := n.uploadDirs.named(sum.Name)
	if u != nil {
		if err := u.describe(ctx, &sum); err != nil {
			return api.Upload{}, err
		}
		if !u.hasLeft() {
			dir.Dir = u.dir
		}
	} else if err := n.describeResting(&sum); err != nil {
		return api.Upload{}, err
	}
	err := countFiles(counting, n.stagingDir(sum.Name), &dir.Files)
	if dir.More = err != nil && counting.Err() != nil && ctx.Err() == nil; dir.More {
		err = nil
	}
	one := uploadAs(sum)
	one.ID, one.Directory = "", dir
	return one, err
}

// describe adds to what the uploader says of the directory what it was not told yet.
func (u *uploadDir) describe(ctx context.Context, sum *uploader.FileStatus) error {
	s, err := u.set.State(ctx)
	if err != nil {
		return err
	}
	left, reason, err := u.backlog(s)
	if err != nil {
		return err
	}
	sum.Bytes += left
	if sum.Reason == "" {
		sum.Reason = reason
	}
	if sum.State == uploader.Uploaded && !s.Synced {
		sum.State = uploader.Uploading
	}
	return nil
}

// backlog is what is to be uploaded of the directory and is in no group yet, as bytes of groups, and what of that a
// person can do something about.
func (u *uploadDir) backlog(s dataset.State) (left int64, reason string, err error) {
	b, err := u.set.Backlog()
	if err != nil {
		return 0, "", err
	}
	bytes := u.set.Stats().QueuedBytes + b.Bytes
	if s.Busy > b.Files && b.Files > 0 {
		bytes += b.Bytes / int64(b.Files) * int64(s.Busy-b.Files)
	}
	left = u.set.Stored(bytes) * int64(max(1, u.req.Redundancy))
	switch full := u.set.Full(); {
	case b.Unread > 0:
		reason = fmt.Sprintf("can't read %s: %v", u.pathOf(b.Trouble), b.Err)
	case full != nil:
		reason = full.Error()
	}
	return left, reason, nil
}

// pathOf is where a file lies, or at least its ID.
func (u *uploadDir) pathOf(id dataset.FileID) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if p, ok := u.paths.path([16]byte(id)); ok {
		return path.Join(u.dir, p)
	}
	return fmt.Sprintf("file %x", id)
}

// progress tells how far the upload of the directory is.
func (u *uploadDir) progress(s dataset.State) (api.SyncProgress, error) {
	left, reason, err := u.backlog(s)
	news := u.sink.news.all()
	p := api.SyncProgress{Left: left + news.Bytes - news.Done, Reason: news.Reason}
	if p.Reason == "" {
		p.Reason = reason
	}
	return p, err
}

// describeResting says what becomes of an upload directory that nothing works on.
func (n *Node) describeResting(sum *uploader.FileStatus) error {
	unfinished, err := n.cfg.Repo.Uploads()
	if err != nil {
		return err
	}
	if sum.Bytes == 0 {
		sum.State = uploader.Created
	}
	for _, s := range unfinished {
		if s.Name == sum.Name && sum.Reason == "" {
			sum.State, sum.Reason = uploader.Uploading, "goes on when it is mounted, or a daemon starts"
		}
	}
	return nil
}

// named returns the upload directory of a name, if it is worked on.
func (us *uploads) named(name string) *uploadDir {
	us.mu.Lock()
	defer us.mu.Unlock()
	if u := us.byName[name]; u != nil && u.begun.Load() {
		return u
	}
	return nil
}

// countFiles adds the regular files below dir to n. What vanishes meanwhile is not counted.
func countFiles(ctx context.Context, dir string, n *uint64) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	d, err := os.Open(dir)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("count files: %w", err)
	}
	defer d.Close()
	for {
		batch, err := d.ReadDir(1024)
		for _, e := range batch {
			switch {
			case e.Type().IsRegular():
				*n++
			case e.IsDir():
				if err := countFiles(ctx, filepath.Join(dir, e.Name()), n); err != nil {
					return err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("count files: %w", err)
		}
	}
}

// unmounted lists the upload directories that go up without being mounted.
func (n *Node) unmounted(ctx context.Context) (out []api.Upload, err error) {
	for _, u := range n.uploadDirs.list() {
		if !u.hasLeft() {
			continue
		}
		sum := u.sink.news.all()
		sum.Name = u.req.Name
		if err := u.describe(ctx, &sum); err != nil {
			return nil, err
		}
		one := uploadAs(sum)
		one.ID, one.Directory = "", &api.UploadDirectory{}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b api.Upload) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
