package node

import (
	"context"
	"errors"
	"testing"

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

// TestUnreadableGroups are those of which fewer chunks are pledged than it takes, or whose shards are missed.
func TestUnreadableGroups(t *testing.T) {
	s := &uploadSink{u: &uploadDir{req: api.UploadRequest{Protect: api.Protection{K: 4, M: 2}}}}
	for _, c := range []struct {
		done   int64
		reason string
		want   bool
	}{{6, "", false}, {4, "", false}, {3, "", true}, {5, "rebuild shard x: 1 more shards are needed", true}, {5, "needs 6 providers, 5 known", false}} {
		if got := s.unreadable(uploader.FileStatus{Bytes: 6, Done: c.done, Reason: c.reason}); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
