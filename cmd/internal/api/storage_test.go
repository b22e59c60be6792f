package api

import (
	"context"
	"reflect"
	"strings"
	"testing"
)

func (f *fakeNode) RetryUpload(_ context.Context, of UploadRef) (UploadsChanged, error) {
	return UploadsChanged{Changed: 2, Left: 1}, f.note("retry %+v", of)
}

func (f *fakeNode) CancelUpload(_ context.Context, of UploadRef) (UploadsChanged, error) {
	return UploadsChanged{Changed: 3}, f.note("cancel %+v", of)
}

func (f *fakeNode) RepairUploads(_ context.Context, of UploadRef) (RepairedLinks, error) {
	return RepairedLinks{Links: 5, Lost: []LostLink{{Chunk: "c", Provider: "p", Reason: "r"}}, Placed: 1}, f.note("repair %+v", of)
}

func (f *fakeNode) Pending(_ context.Context, dir string) (Pending, error) {
	return Pending{Upload: true, Files: 7, Bytes: 8, GoesOn: true}, f.note("pending %s", dir)
}

// TestUploadCalls: what commands want of uploads reaches the node as it was said, and its answers come back.
func TestUploadCalls(t *testing.T) {
	f := &fakeNode{}
	c, _, _ := serve(t, f)
	ctx := context.Background()
	in, named := UploadRef{Dir: "/m nt/ü", Path: "a b/\xc3\xa9"}, UploadRef{Name: root}
	for _, call := range []struct {
		says string
		do   func() (any, error)
		want any
	}{
		{"retry {Dir:/m nt/ü Path:a b/é Name:}", func() (any, error) { return c.RetryUpload(ctx, in) }, UploadsChanged{Changed: 2, Left: 1}},
		{"cancel {Dir: Path: Name:" + root + "}", func() (any, error) { return c.CancelUpload(ctx, named) }, UploadsChanged{Changed: 3}},
		{"repair {Dir: Path: Name:" + root + "}", func() (any, error) { return c.RepairUploads(ctx, named) },
			RepairedLinks{Links: 5, Lost: []LostLink{{Chunk: "c", Provider: "p", Reason: "r"}}, Placed: 1}},
		{"pending /m nt/ü", func() (any, error) { return c.Pending(ctx, "/m nt/ü") }, Pending{Upload: true, Files: 7, Bytes: 8, GoesOn: true}},
	} {
		got, err := call.do()
		if err != nil || !reflect.DeepEqual(got, call.want) {
			t.Errorf("%s: %+v, %v", call.says, got, err)
		}
		if !strings.Contains(strings.Join(f.requests, "\n"), call.says) {
			t.Errorf("%q did not reach the node: %q", call.says, f.requests)
		}
	}
	f.fail = &Error{Code: CodeNotFound, Message: "no such upload", Advice: "look for it"}
	if _, err := c.RetryUpload(ctx, named); CodeOf(err) != CodeNotFound || err.Error() != "no such upload" {
		t.Errorf("a failure comes back as %v", err)
	}
}
