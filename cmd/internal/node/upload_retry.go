package node

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/fs"
	"github.com/holdfastfs/holdfast/uploader"
	"github.com/holdfastfs/holdfast/uploader/dataset"
)

// RetryUpload takes uploads up at once, whatever pauses there are, also those that were cancelled.
func (n *Node) RetryUpload(ctx context.Context, of api.UploadRef) (api.UploadsChanged, error) {
	if of.Dir == "" {
		ids, err := n.uploadsNamed(ctx, of.Name)
		for _, id := range ids {
			err = errors.Join(err, n.uploader.Retry(ctx, id))
		}
		return api.UploadsChanged{Changed: len(ids)}, answer(err)
	}
	u, p, err := n.uploadPath(of)
	if err != nil {
		return api.UploadsChanged{}, err
	}
	r := retry{u: u, groups: make(map[dataset.GroupID]bool)}
	if err := u.files(ctx, p, r.file); err != nil {
		return api.UploadsChanged{}, answer(err)
	}
	r.all = p == ""
	return r.out, answer(r.finish(ctx))
}

// CancelUpload ends uploads until they are retried or, in an upload directory, the file is written again. What of
// them is with providers is released unless something else needs it. Files that are uploaded are left alone.
func (n *Node) CancelUpload(ctx context.Context, of api.UploadRef) (api.UploadsChanged, error) {
	if of.Dir == "" {
		ids, err := n.uploadsNamed(ctx, of.Name)
		for _, id := range ids {
			err = errors.Join(err, n.uploader.Cancel(ctx, id))
		}
		return api.UploadsChanged{Changed: len(ids)}, answer(err)
	}
	u, p, err := n.uploadPath(of)
	if err != nil {
		return api.UploadsChanged{}, err
	}
	c := cancel{u: u}
	if err := u.files(ctx, p, c.file); err != nil {
		return c.out, answer(err)
	}
	return c.out, answer(c.finish(ctx))
}

// uploadsNamed finds what was added to be uploaded by its ID, its manifest's or root's CID, or its name.
func (n *Node) uploadsNamed(ctx context.Context, name string) ([]uploader.FileID, error) {
	all, err := n.uploader.Uploads(ctx)
	if err != nil {
		return nil, err
	}
	wanted := make(map[uploader.FileID]bool)
	if c, err := cid.Decode(name); err == nil {
		wanted[uploadOf(c)] = true
		manifests, err := n.register.Of(ctx, c)
		if err != nil {
			return nil, err
		}
		for _, m := range manifests {
			wanted[uploadOf(m)] = true
		}
	}
	var found []uploader.FileID
	for _, f := range all {
		if f.ID.String() != name && f.Name != name && !wanted[f.ID] {
			continue
		}
		if u := n.uploadDirs.owner(f.ID); u != nil && !u.hasLeft() {
			return nil, &api.Error{Code: api.CodeUsage, Message: fmt.Sprintf("%s is a part of the upload directory %s", name, u.dir),
				Advice: "name the directory, and a path in it"}
		}
		found = append(found, f.ID)
	}
	if len(found) == 0 {
		return nil, &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("nothing of the name %q is being uploaded", name),
			Advice: "holdfast uploads lists what is; what is in an upload directory is named by the directory and a path in it"}
	}
	return found, nil
}

// owner returns the upload directory that a file at the uploader belongs to, if it is mounted.
func (us *uploads) owner(id uploader.FileID) *uploadDir {
	for _, u := range us.list() {
		if u.sink.owns(id) {
			return u
		}
	}
	return nil
}

// uploadPath finds the upload directory of a request, and the path in its staging tree.
func (n *Node) uploadPath(of api.UploadRef) (*uploadDir, string, error) {
	u, err := n.uploadAt(of.Dir)
	if err != nil {
		return nil, "", err
	}
	p, err := u.staged(of.Path)
	return u, p, err
}

// staged is the path in the staging tree that a request means.
func (u *uploadDir) staged(of string) (p string, err error) {
	p = of
	if filepath.IsAbs(p) {
		if p, err = resolveParent(p); err == nil {
			p, err = filepath.Rel(u.dir, p)
		}
		if err != nil {
			return "", answer(err)
		}
	}
	if p = path.Clean(p); p == ".." || strings.HasPrefix(p, "../") {
		return "", &api.Error{Code: api.CodeUsage, Message: fmt.Sprintf("%s is not below %s", of, u.dir)}
	}
	if p == "." {
		p = ""
	}
	return p, nil
}

// uploadAt finds the upload directory that is mounted on dir.
func (n *Node) uploadAt(dir string) (*uploadDir, error) {
	dir, err := resolveParent(dir)
	if err != nil {
		return nil, answer(err)
	}
	u := n.uploadDirs.find(dir)
	if u == nil {
		return nil, &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("%s is no upload directory that is mounted", dir)}
	}
	return u, nil
}

// stagedFile is a regular file in the staging tree.
type stagedFile struct {
	fs.File
	links  uint32 // names that it has
	blocks int64  // bytes that it takes on the disk
	used   int64  // when it was read last, in Unix nanoseconds
}

// files calls fn with each regular file at or below a path. What vanishes meanwhile is left out.
func (u *uploadDir) files(ctx context.Context, p string, fn func(context.Context, stagedFile) error) error {
	dir, err := u.root.Open(path.Dir(name(p)))
	if err != nil {
		return fmt.Errorf("%s: %w", path.Join(u.dir, p), goneIsNotFound(staged(err)))
	}
	defer dir.Close()
	e, st, err := statAt(dir, path.Base(name(p)))
	if err != nil {
		return fmt.Errorf("%s: %w", path.Join(u.dir, p), goneIsNotFound(err))
	}
	return u.filesIn(ctx, p, e, &st, fn)
}

func (u *uploadDir) filesIn(ctx context.Context, p string, e dataset.Entry, st *unix.Statx_t, fn func(context.Context, stagedFile) error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case e.Kind == dataset.Directory:
		err := u.list(p, func(e dataset.Entry, st *unix.Statx_t) error { return u.filesIn(ctx, path.Join(p, e.Name), e, st, fn) })
		if errors.Is(err, dataset.ErrGone) {
			return nil
		}
		return err
	case e.Kind != dataset.Regular:
		return nil
	}
	return fn(ctx, stagedFile{links: st.Nlink, blocks: int64(st.Blocks) * 512, used: usedAt(st), File: fs.File{ID: fs.FileID(e.ID), Path: p, Version: versionAt(st)}})
}

// retry takes files up again.
type retry struct {
	u      *uploadDir
	groups map[dataset.GroupID]bool
	all    bool // what of names and directories is lost, too
	linked bool // a cancelled one has more names than that which it was found by
	out    api.UploadsChanged
}

func (r *retry) file(ctx context.Context, f stagedFile) error {
	if f.ID == (fs.FileID{}) {
		r.out.Left++ // it is being written, and begins by itself
		return nil
	}
	was, err := r.u.withheld.drop(ctx, f.ID)
	if err != nil {
		return err
	}
	if was {
		r.out.Changed++
		r.linked = r.linked || f.links > 1
		return r.u.set.Told(ctx, dataset.Change{Kind: dataset.Closed, Path: f.Path, File: dataset.FileID(f.ID), Version: setVersion(f.Version)})
	}
	s, err := r.u.set.File(ctx, dataset.FileID(f.ID))
	if errors.Is(err, dataset.ErrGone) || err == nil && s.Err == nil && s.Placed == s.Blocks && !s.Closed {
		r.out.Left++
		return nil
	}
	for _, g := range s.Groups {
		r.groups[g] = true
	}
	r.out.Changed++
	return err
}

// finish has the groups of all those files asked for again, and the manifest.
func (r *retry) finish(ctx context.Context) error {
	ids := []uploader.FileID{r.u.sink.file(uploadedManifest, 0)}
	// What was placed once may be here no more but in the staging tree: whoever began to read it now would wait for
	// providers.
	var lost []dataset.GroupID
	err := r.u.set.LostGroups(ctx, func(g dataset.GroupID) bool {
		if r.all || r.groups[g] {
			lost = append(lost, g)
			delete(r.groups, g)
		}
		return true
	})
	if err == nil {
		err = r.u.sink.renew(ctx, lost)
	}
	if err != nil {
		return err
	}
	for g := range r.groups {
		ids = append(ids, r.u.sink.file(uploadedGroup, uint64(g)))
	}
	for _, id := range ids {
		if err := r.u.n.uploader.Retry(ctx, id); err != nil && !errors.Is(err, uploader.ErrNotFound) {
			return err
		}
	}
	err = r.u.withheld.sync(ctx)
	if err == nil && r.linked {
		err = r.u.set.Scan(ctx)
	}
	r.u.changed()
	return err
}

// cancel withholds files.
type cancel struct {
	u      *uploadDir
	linked bool // one has more names than that which it was found by
	out    api.UploadsChanged
}

func (c *cancel) file(ctx context.Context, f stagedFile) error {
	if f.ID == (fs.FileID{}) || c.u.withheld.has(f.ID) {
		c.out.Left++
		return nil
	}
	s, err := c.u.Status(ctx, f.ID)
	if err != nil || s.State == "uploaded" {
		c.out.Left++
		return err
	}
	if err := c.u.withheld.add(ctx, f.ID, f.Version); err != nil {
		return err
	}
	c.out.Changed++
	c.linked = c.linked || f.links > 1
	return c.u.set.Told(ctx, dataset.Change{Kind: dataset.Named, Path: f.Path})
}

// finish takes the files out of the dataset under their other names, too.
func (c *cancel) finish(ctx context.Context) error {
	err := c.u.withheld.sync(ctx)
	if err == nil && c.linked {
		err = c.u.set.Scan(ctx)
	}
	c.u.changed()
	return err
}
