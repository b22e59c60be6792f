package node

import (
	"context"
	"errors"
	"testing"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/uploader"
)

// fakeKeeper refuses files, or takes them.
type fakeKeeper struct {
	groupKeeper
	err error
	put int
}

func (k *fakeKeeper) Put(context.Context, uploader.File) error {
	if k.err == nil {
		k.put++
	}
	return k.err
}

// TestAManifestIsTheLatestWhenItIsKept: as long as the uploader has what was kept before, a new manifest does not count as
// placed because that is, whatever fails on the way.
func TestAManifestIsTheLatestWhenItIsKept(t *testing.T) {
	ctx := context.Background()
	k := &fakeKeeper{err: errors.New("no room")}
	s := &uploadSink{u: &uploadDir{req: api.UploadRequest{Name: "up"}}, keeper: k, store: ds.NewMapDatastore(), key: ds.NewKey("up")}
	if err := s.keepManifest(ctx, 7); !errors.Is(err, k.err) || s.state.Latest != 0 {
		t.Errorf("latest is %d, %v", s.state.Latest, err)
	}
	if has, err := s.store.Has(ctx, s.key); has || err != nil {
		t.Errorf("it is remembered: %v, %v", has, err)
	}
	k.err = nil
	if err := s.keepManifest(ctx, 7); err != nil || s.state.Latest != 7 || k.put != 1 {
		t.Errorf("latest is %d, %v", s.state.Latest, err)
	}
}

// Links tells of six chunks, of which so many are signed as the file's ID begins with.
func (k *fakeKeeper) Links(_ context.Context, of ...uploader.FileID) (all []uploader.LinkStatus, err error) {
	for i := range 6 {
		chunk := cid.NewCidV1(cid.Raw, append([]byte{0, 1}, byte(i)))
		all = append(all, uploader.LinkStatus{Chunk: chunk, State: uploader.LinkFailed})
		if i < int(of[0][0]) {
			all = append(all, uploader.LinkStatus{Chunk: chunk, State: uploader.LinkSigned}, uploader.LinkStatus{Chunk: chunk, State: uploader.LinkFailed})
		}
	}
	return all, nil
}

// TestUnreadableGroups are those of which fewer chunks are pledged than it takes, or whose shards are missed.
func TestUnreadableGroups(t *testing.T) {
	s := &uploadSink{u: &uploadDir{req: api.UploadRequest{Protect: api.Protection{K: 4, M: 2}}}, keeper: &fakeKeeper{}}
	for _, c := range []struct {
		signed byte
		reason string
		want   bool
	}{{6, "", false}, {4, "", false}, {3, "", true}, {5, "rebuild shard x: 1 more shards are needed", true}, {5, "needs 6 providers, 5 known", false}} {
		got, err := s.unreadable(context.Background(), uploader.FileStatus{ID: uploader.FileID{c.signed}, Reason: c.reason})
		if got != c.want || err != nil {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
}
