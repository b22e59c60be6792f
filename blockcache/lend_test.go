package blockcache

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"
)

// shelf is a Lender of the files in a folder.
type shelf struct {
	dir  string
	fail error
}

func (s *shelf) OpenLent(name, _ string) (*os.File, error) {
	if s.fail != nil {
		return nil, s.fail
	}
	return os.Open(filepath.Join(s.dir, name))
}

func (s *shelf) path(name string) string { return filepath.Join(s.dir, name) }

// lendFile lends a store a file, all of whose leaves are put.
func lendFile(t testing.TB, s *Store, from *shelf, name string, f fakeFile) *BodyWriter {
	t.Helper()
	must(t, os.WriteFile(from.path(name), f.bytes, 0o600))
	return lendAgain(t, s, from, name, f)
}

// lendAgain lends a file that is there.
func lendAgain(t testing.TB, s *Store, from *shelf, name string, f fakeFile) *BodyWriter {
	t.Helper()
	w, err := s.LendBody(t.Context(), from.loan(t, name))
	must(t, err)
	must(t, w.Put(t.Context(), 0, f.blocks()))
	return w
}

func (s *shelf) loan(t testing.TB, name string) Loan {
	t.Helper()
	f, err := os.Open(s.path(name))
	must(t, err)
	defer f.Close()
	st, err := stampOf(f)
	must(t, err)
	return Loan{Name: name, Hint: "here", Stamp: st}
}

// lentBox is a store that a file was lent to.
func lentBox(t testing.TB, cfg StoreConfig, size int) (*box, *shelf, fakeFile) {
	t.Helper()
	from := &shelf{dir: scratch(t)}
	cfg.Lender = from
	b := newBox(t, cfg)
	f := makeFile(t, 77, size, 1<<20)
	must(t, lendFile(t, b.Store, from, "file", f).Commit(t.Context(), f.root))
	return b, from, f
}

func mustLack(t testing.TB, s *Store, c cid.Cid) {
	t.Helper()
	if _, err := s.Get(t.Context(), Want{CID: c}); !errors.Is(err, ErrNotFound) {
		t.Errorf("get a block that is not here: %v", err)
	}
	if ok, err := s.Has(t.Context(), c); ok || err != nil {
		t.Errorf("has a block that is not here: %v, %v", ok, err)
	}
}

// wantLent expects all of a file to be read from where it was lent.
func wantLent(t testing.TB, b *box, f fakeFile) {
	t.Helper()
	for _, l := range f.leaves {
		mustGet(t, b, l.Block)
	}
	if _, ok := b.Body(f.root); ok {
		t.Error("a lent file's descriptor was given out")
	}
	st := b.Stats()
	if st.UsedBytes != 0 || st.LentBytes != int64(len(f.bytes)) || st.Lent != 1 || st.Blocks != int64(len(f.leaves)) {
		t.Errorf("stats: %+v", st)
	}
	if names, err := b.fs.List(bodyDir); err != nil || len(names) > 0 {
		t.Errorf("the store has files: %v, %v", names, err)
	}
	checkFigures(t.(*testing.T), b.Store)
}

func TestLentBodyIsReadWhereItLies(t *testing.T) {
	t.Parallel()
	b, _, f := lentBox(t, StoreConfig{}, 6<<20+5)
	wantLent(t, b, f)
	mustPut(t, b, f.leaves...)
	mustPut(t, b, Entry{Block: f.leaves[1].Block})
	wantLent(t, b, f)
	must(t, b.Sync(t.Context()))
	b.reopen()
	wantLent(t, b, f)
	b.crash()
	wantLent(t, b, f)
	must(t, b.verifyAll(t.Context()))
	if st := b.Stats(); st.VerifiedBytes != 0 || st.Unverified != 0 {
		t.Errorf("a lent file was verified: %+v", st)
	}
	r, err := b.GC(t.Context())
	must(t, err)
	if r.Blocks != int64(len(f.leaves)) {
		t.Errorf("collected %+v", r)
	}
	wantEmpty(t, b)
}

func TestLentBodyIsNotReadBeforeCommit(t *testing.T) {
	t.Parallel()
	from := &shelf{dir: scratch(t)}
	b := newBox(t, StoreConfig{Lender: from})
	f := makeFile(t, 5, 5<<20, 1<<20)
	for _, end := range []func(*BodyWriter){
		func(w *BodyWriter) { w.Abort() },
		func(*BodyWriter) { b.crash() },
		func(*BodyWriter) { b.reopen() },
	} {
		w := lendFile(t, b.Store, from, "file", f)
		mustLack(t, b.Store, f.leaves[0].Block.Cid())
		end(w)
		wantEmpty(t, b)
		checkFigures(t, b.Store)
	}
}

func TestLentBodyIsBeyondTheQuota(t *testing.T) {
	t.Parallel()
	b, _, f := lentBox(t, StoreConfig{QuotaBytes: 8 << 20}, 24<<20)
	pinLeaves(t, b.Store, f.leaves...)
	for i := range uint64(20) {
		mustPut(t, b, Entry{Block: randBlock(t, 1000+i, 1<<20)})
	}
	for _, l := range f.leaves {
		mustGet(t, b, l.Block)
	}
	if st := b.Stats(); st.UsedBytes > 8<<20 || st.LentBytes != 24<<20 || st.Evictions == 0 {
		t.Errorf("stats: %+v", st)
	}
}

func pinLeaves(t testing.TB, s *Store, es ...Entry) cid.Cid {
	t.Helper()
	root := randBlock(t, 4711, 9).Cid()
	cids := make([]cid.Cid, len(es))
	for i, e := range es {
		cids[i] = e.Block.Cid()
	}
	must(t, s.Pin(t.Context(), root, cids))
	return root
}

func TestLentFileThatChanged(t *testing.T) {
	t.Parallel()
	later := time.Now().Add(time.Hour)
	for name, change := range map[string]func(path string, f fakeFile) error{
		"touched":   func(path string, _ fakeFile) error { return os.Chtimes(path, later, later) },
		"shortened": func(path string, f fakeFile) error { return os.Truncate(path, int64(len(f.bytes)-1)) },
		"longer":    func(path string, f fakeFile) error { return os.Truncate(path, int64(len(f.bytes)+1)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, from, f := lentBox(t, StoreConfig{}, 5<<20)
			pinLeaves(t, b.Store, f.leaves...)
			b.reopen()
			must(t, change(from.path("file"), f))
			for _, l := range f.leaves {
				mustLack(t, b.Store, l.Block.Cid())
			}
			if st := b.Stats(); st.LentChanged != 1 {
				t.Errorf("stats: %+v", st)
			}
			mustPut(t, b, f.leaves[0])
			mustGet(t, b, f.leaves[0].Block)
			must(t, b.dropChanged(t.Context()))
			if st := b.Stats(); st.LentBytes != 0 || st.Lent != 0 || st.Blocks != 1 {
				t.Errorf("stats: %+v", st)
			}
			checkFigures(t, b.Store)
			must(t, b.Reclaim(t.Context(), "file"))
			mustGet(t, b, f.leaves[0].Block)
		})
	}
}

func TestLentFileWrittenBehindOurBack(t *testing.T) {
	t.Parallel()
	b, from, f := lentBox(t, StoreConfig{}, 5<<20)
	mustGet(t, b, f.leaves[0].Block) // the descriptor is open
	w, err := os.OpenFile(from.path("file"), os.O_WRONLY, 0)
	must(t, err)
	_, err = w.WriteAt([]byte("x"), 2<<20+5)
	must(t, errors.Join(err, w.Close()))
	mustLack(t, b.Store, f.leaves[2].Block.Cid())
	mustGet(t, b, f.leaves[1].Block)
	mustPut(t, b, f.leaves[2])
	mustGet(t, b, f.leaves[2].Block)
	got, err := os.ReadFile(from.path("file"))
	must(t, err)
	if bytes.Equal(got, f.bytes) {
		t.Error("the store wrote to the lent file")
	}
	checkFigures(t, b.Store)
}

func TestLentFileWithOtherNameAndMode(t *testing.T) {
	t.Parallel()
	b, from, f := lentBox(t, StoreConfig{}, 5<<20)
	b.reopen()
	must(t, os.Chmod(from.path("file"), 0o400))
	wantLent(t, b, f)
	must(t, os.Chtimes(from.path("file"), time.Now(), time.Now()))
	must(t, b.Restamp(t.Context(), from.loan(t, "file")))
	must(t, b.Restamp(t.Context(), Loan{Name: "another", Stamp: Stamp{Bytes: 1}}))
	b.reopen()
	wantLent(t, b, f)
	if got := b.Loans("fi"); len(got) != 1 || got[0] != "file" || len(b.Loans("x")) != 0 {
		t.Errorf("loans: %v", got)
	}
}

func TestLentFileThatIsAway(t *testing.T) {
	t.Parallel()
	b, from, f := lentBox(t, StoreConfig{}, 5<<20)
	pinLeaves(t, b.Store, f.leaves...)
	b.reopen()
	from.fail = errors.New("not mounted")
	for _, l := range f.leaves {
		mustLack(t, b.Store, l.Block.Cid())
	}
	if b.Reclaim(t.Context(), "file") == nil {
		t.Error("a file that cannot be read was given back")
	}
	must(t, b.Sync(t.Context()))
	mustPut(t, b, Entry{Block: f.leaves[0].Block}) // somebody fetched it meanwhile
	mustGet(t, b, f.leaves[0].Block)
	from.fail = nil
	for _, l := range f.leaves {
		mustGet(t, b, l.Block)
	}
	b.reopen()
	from.fail = fmt.Errorf("removed: %w", ErrNotFound)
	mustLack(t, b.Store, f.leaves[1].Block.Cid())
	from.fail = nil
	mustLack(t, b.Store, f.leaves[1].Block.Cid())
	must(t, b.dropChanged(t.Context()))
	if st := b.Stats(); st.LentChanged != 1 || st.Lent != 0 {
		t.Errorf("stats: %+v", st)
	}
	checkFigures(t, b.Store)
}

func TestOwnBodyWinsOverLent(t *testing.T) {
	t.Parallel()
	from := &shelf{dir: scratch(t)}
	b := newBox(t, StoreConfig{Lender: from})
	f := makeFile(t, 5, 5<<20, 1<<20)
	own := func() {
		w, err := b.CreateBody(t.Context(), uint64(len(f.bytes)))
		must(t, err)
		must(t, w.Put(t.Context(), 0, f.blocks()))
		must(t, w.Commit(t.Context(), f.root))
	}
	must(t, lendFile(t, b.Store, from, "a", f).Commit(t.Context(), f.root))
	must(t, lendFile(t, b.Store, from, "b", f).Commit(t.Context(), f.root))
	wantLent(t, b, f)
	own()
	must(t, lendFile(t, b.Store, from, "c", f).Commit(t.Context(), f.root))
	mustBody(t, b.Store, f)
	if st := b.Stats(); st.Lent != 0 || st.Bodies != 1 || st.UsedBytes != int64(len(f.bytes)) {
		t.Errorf("stats: %+v", st)
	}
	checkFigures(t, b.Store)
}

func TestLendBodyRefuses(t *testing.T) {
	t.Parallel()
	ok := Loan{Name: "file", Stamp: Stamp{Bytes: 5 << 20}}
	if _, err := newBox(t, StoreConfig{}).LendBody(t.Context(), ok); err == nil {
		t.Error("a body was lent without a lender")
	}
	b := newBox(t, StoreConfig{Lender: &shelf{}})
	for _, l := range []Loan{{Stamp: ok.Stamp}, {Name: "file"}, {Name: string(make([]byte, maxLoanName+1)), Stamp: ok.Stamp}} {
		if _, err := b.LendBody(t.Context(), l); err == nil {
			t.Errorf("a loan of %d bytes by a name of %d was taken", l.Stamp.Bytes, len(l.Name))
		}
	}
}

// diskBytes is what a file takes on the disk.
func diskBytes(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return st.Blocks * 512
}
