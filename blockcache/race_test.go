package blockcache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
)

// TestManyAtOnce lets everything happen at the same time in a store too small for all of it.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t, StoreConfig{QuotaBytes: 14 << 20, PackBytes: 512 << 10, OpenFiles: 3})
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error)
	go func() { ran <- b.Run(ctx) }()
	var files []fakeFile
	for i := range uint64(4) {
		files = append(files, makeFile(t, i, 4<<20, 256<<10))
	}
	var small []Entry
	for i := range uint64(50) {
		small = append(small, Entry{Block: randBlock(t, 100+i, 1+int(i)*300)})
	}
	works := []func(r *rand.Rand) error{
		func(r *rand.Rand) error { return b.Put(t.Context(), files[r.IntN(4)].leaves) },
		func(r *rand.Rand) error { f := files[r.IntN(4)]; return b.Put(t.Context(), f.leaves[r.IntN(16):]) },
		func(r *rand.Rand) error { return b.Put(t.Context(), small[r.IntN(50):]) },
		func(r *rand.Rand) error { return readBody(b.Store, files[r.IntN(4)]) },
		func(r *rand.Rand) error { return readBlock(b.Store, files[r.IntN(4)].leaves[r.IntN(16)]) },
		func(r *rand.Rand) error { return readBlock(b.Store, small[r.IntN(50)]) },
		func(r *rand.Rand) error { return writeBody(b.Store, files[r.IntN(4)], r.IntN(3) > 0) },
		func(r *rand.Rand) error { return b.Sync(t.Context()) },
		func(r *rand.Rand) error {
			e := small[r.IntN(50)]
			return errors.Join(b.Pin(t.Context(), e.Block.Cid(), blockCIDs(small[r.IntN(50):])), b.Unpin(t.Context(), e.Block.Cid()))
		},
		func(r *rand.Rand) error { return b.Delete(t.Context(), blockCIDs(small[r.IntN(50):])) },
		func(r *rand.Rand) error { return b.rewriteAny(r) },
		func(r *rand.Rand) error { _ = b.Stats(); _, err := b.GC(t.Context()); return err },
	}
	var wg sync.WaitGroup
	for i, work := range works {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 5))
			for range 15 {
				if err := work(r); err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrFull) {
					t.Errorf("work %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	cancel()
	must(t, <-ran)
	checkFigures(t, b.Store)
	if st := b.Stats(); st.Corruptions > 0 || st.UsedBytes > st.QuotaBytes {
		t.Errorf("stats: %+v", st)
	}
	b.reopen()
	checkFigures(t, b.Store)
}

func readBody(s *Store, f fakeFile) error {
	fd, ok := s.Body(f.root)
	if !ok {
		return nil
	}
	got, err := io.ReadAll(fd)
	if err == nil && !bytes.Equal(got, f.bytes) {
		err = errors.New("a body has wrong bytes")
	}
	return errors.Join(err, fd.Close())
}

func readBlock(s *Store, e Entry) error {
	b, err := s.Get(context.Background(), wantOf(e))
	if err == nil && !bytes.Equal(b.RawData(), e.Block.RawData()) {
		return errors.New("a block has wrong bytes")
	}
	return err
}

func writeBody(s *Store, f fakeFile, commit bool) error {
	ctx := context.Background()
	w, err := s.CreateBody(ctx, uint64(len(f.bytes)))
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, 2)
	half := len(f.leaves) / 2
	wg.Go(func() { errs[0] = w.Put(ctx, 0, f.blocks()[:half]) })
	wg.Go(func() { errs[1] = w.Put(ctx, f.leaves[half].Place.Offset, f.blocks()[half:]) })
	wg.Wait()
	if err := errors.Join(errs...); err != nil || !commit {
		w.Abort()
		return err
	}
	return w.Commit(ctx, f.root)
}
