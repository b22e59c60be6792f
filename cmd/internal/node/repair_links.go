package node

import (
	"context"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/uploader"
)

const (
	// repairPoll is how often the uploader is asked how far a repair is.
	repairPoll = 200 * time.Millisecond
	// repairIdle is how long a repair waits where nothing is under way: for providers that are found late.
	repairIdle = 5 * time.Second
	// repairQuiet is how long it waits for what is under way, and does not get on.
	repairQuiet = 2 * time.Minute
)

// RepairUploads audits the links of uploads now, has those of providers that fail or don't answer replaced, and what ends
// soon renewed. It returns when that is done, or does not get on.
func (n *Node) RepairUploads(ctx context.Context, of api.UploadRef) (api.RepairedLinks, error) {
	ids, err := n.uploadsToRepair(ctx, of)
	if err != nil {
		return api.RepairedLinks{}, answer(err)
	}
	r := linkRepair{n: n, ids: ids, changed: time.Now()}
	if r.before, err = n.uploader.Links(ctx, ids...); err != nil {
		return api.RepairedLinks{}, answer(err)
	}
	if err := n.uploader.Repair(ctx, ids...); err != nil {
		return api.RepairedLinks{}, answer(err)
	}
	tick := time.NewTicker(repairPoll)
	defer tick.Stop()
	for {
		over, err := r.look(ctx)
		if err != nil {
			return api.RepairedLinks{}, answer(err)
		}
		if over {
			return r.report(), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return api.RepairedLinks{}, answer(context.Cause(ctx))
		}
	}
}

// uploadsToRepair finds the files of an upload directory, also by its root or manifest, or of what was added.
func (n *Node) uploadsToRepair(ctx context.Context, of api.UploadRef) ([]uploader.FileID, error) {
	var dir *uploadDir
	if of.Dir != "" {
		u, err := n.uploadAt(of.Dir)
		if err != nil {
			return nil, err
		}
		dir = u
	} else if c, err := cid.Decode(of.Name); err == nil {
		for _, u := range n.uploadDirs.list() {
			s, err := u.set.State(ctx)
			if err != nil {
				return nil, err
			}
			for _, m := range []struct{ root, manifest cid.Cid }{{s.Placed.Root, s.Placed.CID}, {s.Latest.Root, s.Latest.CID}} {
				if m.root.Equals(c) || m.manifest.Equals(c) {
					dir = u
				}
			}
		}
	}
	if dir == nil {
		return n.uploadsNamed(ctx, of.Name)
	}
	if err := dir.restageLost(ctx); err != nil {
		return nil, err
	}
	all, err := n.uploader.Uploads(ctx)
	if err != nil {
		return nil, err
	}
	var ids []uploader.FileID
	for _, f := range all {
		if dir.sink.owns(f.ID) {
			ids = append(ids, f.ID)
		}
	}
	if len(ids) == 0 {
		return nil, &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("nothing of %s is being uploaded", dir.dir)}
	}
	return ids, nil
}

// linkRepair watches how a repair goes.
type linkRepair struct {
	n       *Node
	ids     []uploader.FileID
	before  []uploader.LinkStatus
	after   []uploader.LinkStatus
	waiting string // why not all is kept as it should be; empty: it is
	last    [3]int // links doubted, open and signed
	changed time.Time
}

// look says whether the repair is over: all is well, or it does not get on.
func (r *linkRepair) look(ctx context.Context) (over bool, err error) {
	if r.after, err = r.n.uploader.Links(ctx, r.ids...); err != nil {
		return false, err
	}
	var now [3]int
	for _, l := range r.after {
		switch {
		case l.Doubted:
			now[0]++
		case l.State == uploader.LinkSigned:
			now[2]++
		case l.State != uploader.LinkFailed:
			now[1]++
		}
	}
	if now != r.last {
		r.last, r.changed = now, time.Now()
	}
	r.waiting = ""
	for _, id := range r.ids {
		s, err := r.n.uploader.Status(ctx, id)
		if err != nil && notThere(err) != nil {
			return false, err
		}
		if err == nil && s.State != uploader.Uploaded && !s.Cancelled {
			r.waiting = s.String()
		}
	}
	quiet := time.Since(r.changed)
	switch {
	case now[0] > 0 || now[1] > 0:
		return quiet > repairQuiet, nil
	case r.waiting == "":
		return true, nil
	}
	return quiet > repairIdle, nil
}

// placeOf is where a copy of a chunk is.
type placeOf struct{ chunk, provider string }

// report compares what was signed before with what is now.
func (r *linkRepair) report() api.RepairedLinks {
	out := api.RepairedLinks{Uploads: len(r.ids), Waiting: r.waiting}
	was := make(map[placeOf]time.Time)
	for _, l := range r.before {
		if l.State == uploader.LinkSigned {
			was[placeOf{l.Chunk.String(), l.Provider.String()}] = l.Expiry
		}
	}
	out.Links = len(was)
	is := make(map[placeOf]bool)
	reasons := make(map[placeOf]string)
	for _, l := range r.after {
		at := placeOf{l.Chunk.String(), l.Provider.String()}
		if l.State != uploader.LinkSigned {
			reasons[at] = l.Reason
			continue
		}
		is[at] = true
		before, held := was[at]
		switch {
		case !held:
			out.Placed++
		case l.Expiry.After(before):
			out.Renewed++
		}
		if l.Doubted {
			out.Unheard++
		}
	}
	for at := range was {
		if !is[at] {
			out.Lost = append(out.Lost, api.LostLink{Chunk: at.chunk, Provider: at.provider, Reason: reasons[at]})
		}
	}
	return out
}
