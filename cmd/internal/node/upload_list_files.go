package node

import (
	"context"
	"errors"
	"iter"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/fs"
)

// errEnough ends a walk whose reader has seen enough.
var errEnough = errors.New("seen enough")

// UploadFiles yields the files at or below a path of an upload directory that are not uploaded, or all, as they are come
// upon: those of a directory in no order, a batch of them at a time in memory.
func (n *Node) UploadFiles(ctx context.Context, of api.UploadFilesRequest) iter.Seq2[api.UploadFile, error] {
	return func(yield func(api.UploadFile, error) bool) {
		u, p, err := n.uploadPath(api.UploadRef{Dir: of.Dir, Path: of.Path})
		if api.CodeOf(err) == api.CodeNotFound && of.Name != "" {
			if named := n.uploadDirs.named(of.Name); named != nil {
				u = named
				p, err = u.staged(of.Path)
			}
		}
		if err == nil {
			err = u.files(ctx, p, func(ctx context.Context, f stagedFile) error {
				one, err := u.listed(ctx, f)
				if err == nil && (of.All || one.State != "uploaded") && !yield(one, nil) {
					err = errEnough
				}
				return err
			})
		}
		if err != nil && !errors.Is(err, errEnough) {
			yield(api.UploadFile{}, answer(err))
		}
	}
}

// listed describes a file.
func (u *uploadDir) listed(ctx context.Context, f stagedFile) (api.UploadFile, error) {
	out := api.UploadFile{Path: f.Path, Bytes: f.Version.Bytes, State: "created"}
	if f.ID == (fs.FileID{}) {
		return out, nil // it is being written
	}
	s, err := u.Status(ctx, f.ID)
	out.State, out.Progress, out.Reason = s.State, s.Progress, s.Err
	if s.CID.Defined() {
		out.CID = s.CID.String()
	}
	return out, err
}
