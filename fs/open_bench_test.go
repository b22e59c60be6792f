package fs

import (
	"log/slog"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// BenchmarkOpen opens and closes the files of a directory in their order, without a kernel.
func BenchmarkOpen(b *testing.B) {
	f := newFake()
	cfg := must(Config{Blocks: f, Root: trees["many"](builder{f}), Logger: slog.New(slog.DiscardHandler)}.withDefaults())
	t := newTree(cfg, 0, 0, false)
	if err := t.begin(b.Context(), "bench", false); err != nil {
		b.Fatal(err)
	}
	names, _ := t.list(b, fuse.FUSE_ROOT_ID, 1<<20, false)
	var ids []uint64
	for _, name := range names[dots:] {
		out, _ := t.lookup(b, fuse.FUSE_ROOT_ID, name)
		ids = append(ids, out.NodeId)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		in := &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: ids[i%len(ids)]}}
		var out fuse.OpenOut
		if st := t.Open(nil, in, &out); st != fuse.OK {
			b.Fatal(st)
		}
		t.Release(nil, &fuse.ReleaseIn{Fh: out.Fh})
		i++
	}
	t.shutdown()
	t.work.Wait()
}
