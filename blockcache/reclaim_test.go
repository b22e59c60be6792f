package blockcache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"
)

// wantNoLoan expects nothing to depend on the lent file, whose bytes it spoils.
func wantNoLoan(t *testing.T, b *box, from *shelf) {
	t.Helper()
	b.fds.mu.Lock()
	for o := range b.fds.open {
		if o.open != nil {
			t.Errorf("a lent file is open: %s", o.name)
		}
	}
	b.fds.mu.Unlock()
	if err := os.WriteFile(from.path("file"), []byte("something else"), 0o600); err != nil {
		t.Error(err)
	}
	if st := b.Stats(); st.Lent != 0 || st.LentBytes != 0 || len(b.Loans("")) != 0 {
		t.Errorf("stats: %+v, loans: %v", st, b.Loans(""))
	}
	checkFigures(t, b.Store)
}

func TestReclaimDropsWhatIsNotPinned(t *testing.T) {
	t.Parallel()
	b, from, f := lentBox(t, StoreConfig{}, 5<<20)
	mustGet(t, b, f.leaves[0].Block)
	must(t, b.Reclaim(t.Context(), "another"))
	mustGet(t, b, f.leaves[0].Block)
	must(t, b.Reclaim(t.Context(), "file"))
	mustLack(t, b.Store, f.leaves[0].Block.Cid())
	wantNoLoan(t, b, from)
	wantEmpty(t, b)
}

func TestReclaimCopiesWhatIsPinned(t *testing.T) {
	t.Parallel()
	from := &shelf{dir: scratch(t)}
	b := newBox(t, StoreConfig{QuotaBytes: 2 << 20, Lender: from})
	f := makeFile(t, 77, 9<<20, 1<<20)
	mustPut(t, b, Entry{Block: f.leaves[7].Block}, Entry{Block: randBlock(t, 3, 1<<19)})
	must(t, lendFile(t, b.Store, from, "file", f).Commit(t.Context(), f.root))
	root := pinLeaves(t, b.Store, f.leaves[1], f.leaves[2], f.leaves[5], f.leaves[7])
	must(t, b.Reclaim(t.Context(), "file"))
	wantNoLoan(t, b, from)
	check := func() {
		t.Helper()
		for i, l := range f.leaves {
			if i == 1 || i == 2 || i == 5 || i == 7 {
				mustGet(t, b, l.Block)
			}
		}
		mustLack(t, b.Store, f.leaves[0].Block.Cid())
		if have, total := b.BodyState(f.root); have != 3<<20 || total != 9<<20 {
			t.Errorf("the body has %d of %d bytes", have, total)
		}
		checkFigures(t, b.Store)
	}
	check()
	b.crash() // what Reclaim copied is durable
	check()
	must(t, b.verifyAll(t.Context()))
	check()
	names, err := b.fs.List(bodyDir)
	must(t, err)
	if len(names) != 1 {
		t.Fatalf("bodies: %v", names)
	}
	if n := diskBytes(t, filepath.Join(b.dir, "blocks", bodyDir, names[0])); n > 3<<20+64<<10 {
		t.Errorf("the body takes %d bytes of the disk", n)
	}
	must(t, b.Unpin(t.Context(), root))
	mustPut(t, b, Entry{Block: randBlock(t, 4, 1<<19)}) // evicts what is over the quota
	if st := b.Stats(); st.UsedBytes > 2<<20 {
		t.Errorf("stats: %+v", st)
	}
}

func TestReclaimKeepsTheFileWhereTheDiskIsFull(t *testing.T) {
	t.Parallel()
	files, err := newFaultFiles(filepath.Join(scratch(t), "blocks"))
	must(t, err)
	b, from, f := lentBox(t, StoreConfig{files: files}, 6<<20)
	pinLeaves(t, b.Store, f.leaves...)
	files.mu.Lock()
	files.room = 2 << 20
	files.mu.Unlock()
	if err := b.Reclaim(t.Context(), "file"); !errors.Is(err, ErrFull) {
		t.Errorf("reclaim on a full disk: %v", err)
	}
	wantLent(t, b, f)
	files.mu.Lock()
	files.room = -1
	files.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Reclaim(ctx, "file"); !errors.Is(err, context.Canceled) {
		t.Errorf("reclaim that was given up: %v", err)
	}
	wantLent(t, b, f)
	must(t, b.Reclaim(t.Context(), "file"))
	wantNoLoan(t, b, from)
	for _, l := range f.leaves {
		mustGet(t, b, l.Block)
	}
}

func TestReclaimForestallsCommit(t *testing.T) {
	t.Parallel()
	from := &shelf{dir: scratch(t)}
	b := newBox(t, StoreConfig{Lender: from})
	f := makeFile(t, 5, 5<<20, 1<<20)
	w := lendFile(t, b.Store, from, "file", f)
	must(t, b.Reclaim(t.Context(), "file"))
	if err := w.Commit(t.Context(), f.root); !errors.Is(err, ErrRecalled) {
		t.Errorf("commit of a file that was recalled: %v", err)
	}
	wantNoLoan(t, b, from)
	wantEmpty(t, b)
}

// lendBeside lends a file once more while somebody is at its older body, which stays.
func lendBeside(t *testing.T, b *box, from *shelf, f fakeFile) {
	t.Helper()
	old := b.bodyOf(f.root)
	if !old.leave() {
		t.Fatal("the body is in use")
	}
	defer old.stay()
	must(t, lendAgain(t, b.Store, from, "file", f).Commit(t.Context(), randBlock(t, 8, 10).Cid()))
}

// Two loans of one file, as of one whose mode has changed, and a file of one block many times over.
func TestReclaimOfManyBodies(t *testing.T) {
	t.Parallel()
	from := &shelf{dir: scratch(t)}
	b := newBox(t, StoreConfig{Lender: from})
	f := makeFile(t, 6, 1<<20, 1<<20)
	for range 4 {
		f.bytes = append(f.bytes, f.bytes[:1<<20]...)
		f.leaves = append(f.leaves, f.leaves[0])
	}
	must(t, lendFile(t, b.Store, from, "file", f).Commit(t.Context(), f.root))
	lendBeside(t, b, from, f)
	if st := b.Stats(); st.Lent != 2 {
		t.Errorf("stats: %+v", st)
	}
	pinLeaves(t, b.Store, f.leaves[0])
	must(t, b.Reclaim(t.Context(), "file"))
	wantNoLoan(t, b, from)
	mustGet(t, b, f.leaves[0].Block)
	if st := b.Stats(); st.UsedBytes != 1<<20 {
		t.Errorf("stats: %+v", st)
	}
}

// take takes the lent file over, whose name stays.
func take(t *testing.T, b *box, from *shelf) {
	t.Helper()
	must(t, b.TakeOver(t.Context(), "file", func(to string) error { return os.Link(from.path("file"), to) }))
}

func TestTakeOver(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(b *box){
		"told":              func(b *box) { must(b.t, b.Gone(t.Context(), "file")) },
		"told before crash": func(b *box) { must(b.t, b.Gone(t.Context(), "file")); b.crash() },
		"crashed":           func(b *box) { b.crash() },
		"stopped":           func(b *box) { b.reopen() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, from, f := lentBox(t, StoreConfig{QuotaBytes: 6 << 20}, 5<<20)
			mustPut(t, b, Entry{Block: randBlock(t, 3, 2<<20)}) // goes for it
			pinLeaves(t, b.Store, f.leaves[3])
			must(t, b.Sync(t.Context()))
			mustGet(t, b, f.leaves[0].Block) // open by the other name
			take(t, b, from)
			must(t, os.Remove(from.path("file")))
			for _, l := range f.leaves {
				mustGet(t, b, l.Block)
			}
			if _, ok := b.Body(f.root); ok {
				t.Error("a file was given out that may have another name")
			}
			end(b)
			wantNoLoan(t, b, from)
			must(t, b.verifyAll(t.Context()))
			mustBody(t, b.Store, f)
			if st := b.Stats(); st.UsedBytes != 5<<20 {
				t.Errorf("stats: %+v", st)
			}
			must(t, b.Delete(t.Context(), []cid.Cid{f.leaves[1].Block.Cid()}))
			mustPut(t, b, f.leaves[1])
			mustBody(t, b.Store, f)
		})
	}
}

func TestTakeOverOfWhatKeepsItsName(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]func(*box){"at once": func(*box) {}, "crashed": (*box).crash} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, from, f := lentBox(t, StoreConfig{}, 5<<20)
			pinLeaves(t, b.Store, f.leaves[3])
			take(t, b, from)
			take(t, b, from)
			again(b)
			must(t, b.Reclaim(t.Context(), "file"))
			wantNoLoan(t, b, from)
			mustGet(t, b, f.leaves[3].Block)
			mustLack(t, b.Store, f.leaves[2].Block.Cid())
			if st := b.Stats(); st.UsedBytes != 1<<20 {
				t.Errorf("stats: %+v", st)
			}
		})
	}
}

// A file whose times have changed has another root, and the same blocks: the older body goes, and nothing is copied.
func TestLentAgainTakesThePlaceOfTheOlder(t *testing.T) {
	t.Parallel()
	b, from, f := lentBox(t, StoreConfig{}, 5<<20)
	pinLeaves(t, b.Store, f.leaves[3])
	must(t, lendAgain(t, b.Store, from, "file", f).Commit(t.Context(), randBlock(t, 8, 10).Cid()))
	for range 2 {
		if st := b.Stats(); st.Lent != 1 || st.LentBytes != 5<<20 || st.UsedBytes != 0 {
			t.Errorf("stats: %+v", st)
		}
		for _, l := range f.leaves {
			mustGet(t, b, l.Block)
		}
		b.crash()
	}
	must(t, b.Reclaim(t.Context(), "file"))
	mustGet(t, b, f.leaves[3].Block)
	wantNoLoan(t, b, from)
}

func TestTakeOverOfManyBodies(t *testing.T) {
	t.Parallel()
	b, from, f := lentBox(t, StoreConfig{}, 5<<20)
	pinLeaves(t, b.Store, f.leaves[3])
	lendBeside(t, b, from, f)
	for range 2 {
		take(t, b, from)
		if st := b.Stats(); st.UsedBytes != 5<<20 || len(b.lentAs("file")) != 1 {
			t.Errorf("stats: %+v, %d bodies", st, len(b.lentAs("file")))
		}
		var is unix.Stat_t
		if must(t, unix.Stat(from.path("file"), &is)); is.Nlink != 2 {
			t.Errorf("the file has %d names", is.Nlink)
		}
	}
	must(t, os.Remove(from.path("file")))
	must(t, b.Gone(t.Context(), "file"))
	for _, l := range f.leaves {
		mustGet(t, b, l.Block)
	}
	wantNoLoan(t, b, from)
}

func TestTakeOverCopiesWhereItCannotLink(t *testing.T) {
	t.Parallel()
	b, from, f := lentBox(t, StoreConfig{}, 5<<20)
	pinLeaves(t, b.Store, f.leaves[3])
	must(t, b.TakeOver(t.Context(), "file", func(string) error { return errors.New("another file system") }))
	wantNoLoan(t, b, from)
	mustGet(t, b, f.leaves[3].Block)
	if st := b.Stats(); st.UsedBytes != 1<<20 {
		t.Errorf("stats: %+v", st)
	}
}

func TestTakeOverLeavesWhatNobodyPinned(t *testing.T) {
	t.Parallel()
	b, from, _ := lentBox(t, StoreConfig{}, 5<<20)
	take(t, b, from)
	wantNoLoan(t, b, from)
	wantEmpty(t, b)
}

func TestGoneWithoutTakeOver(t *testing.T) {
	t.Parallel()
	b, from, f := lentBox(t, StoreConfig{}, 5<<20)
	pinLeaves(t, b.Store, f.leaves...)
	must(t, b.Gone(t.Context(), "file"))
	must(t, b.Gone(t.Context(), "file"))
	wantNoLoan(t, b, from)
	wantEmpty(t, b)
}

// Somebody is at the body while its file's last name goes: Run ends the loan.
func TestGoneOfWhatIsBusy(t *testing.T) {
	t.Parallel()
	for name, taken := range map[string]bool{"taken over": true, "not taken over": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, from, f := lentBox(t, StoreConfig{}, 5<<20)
			pinLeaves(t, b.Store, f.leaves[3])
			if taken {
				take(t, b, from)
			}
			must(t, os.Remove(from.path("file")))
			busy := b.bodyOf(f.root)
			if !busy.leave() {
				t.Fatal("the body is in use")
			}
			must(t, b.Gone(t.Context(), "file"))
			b.maintain(t.Context())
			busy.stay()
			b.maintain(t.Context())
			wantNoLoan(t, b, from)
			if taken {
				mustBody(t, b.Store, f)
			} else {
				wantEmpty(t, b)
			}
		})
	}
}
