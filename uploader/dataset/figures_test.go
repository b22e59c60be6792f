package dataset

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// figure is what a change took.
func (b *box) figure(what string, do func()) {
	b.t.Helper()
	puts, bytes, told := b.store.puts, b.store.bytes, b.sink.told
	begin := time.Now()
	do()
	b.t.Logf("%s: %v, %d blocks of %d bytes written, %d groups", what, time.Since(begin).Round(100*time.Microsecond),
		b.store.puts-puts, b.store.bytes-bytes, b.sink.told-told)
}

func TestManyFiles(t *testing.T) {
	db := openDB(t, t.TempDir())
	defer db.Close()
	b := newBox(t, db)
	b.figure("files of 10 KiB told", func() {
		for i := range folders {
			b.tree.mkdir(fmt.Sprint(i))
			for j := range 100 {
				b.tree.write(fmt.Sprintf("%d/%d", i, j), b.tree.randomBytes(10<<10))
			}
		}
	})
	b.figure("settled", b.settle)
	b.check(b.sync())
	if st := b.d.Stats(); st.Groups > 8 {
		t.Errorf("%d MiB are in %d groups", folders, st.Groups)
	}
}

// TestOneFileOfATree measures a change in a large tree, and one in a directory of as many files.
func TestOneFileOfATree(t *testing.T) {
	for _, wide := range []int{100, treeFiles} {
		t.Run(fmt.Sprint(wide), func(t *testing.T) {
			db := openDB(t, t.TempDir())
			defer db.Close()
			b := newBox(t, db)
			tell := b.tree.tell
			b.tree.tell = func(Change) {} // the first of it is found by a scan
			for i := range treeFiles / wide {
				b.tree.mkdir(fmt.Sprint(i))
				for j := range wide {
					b.tree.write(fmt.Sprintf("%d/%d", i, j), fmt.Appendf(nil, "%d %d", i, j))
				}
			}
			b.tree.tell = tell
			b.figure("scanned", func() { must(t, b.d.Scan(context.Background())) })
			b.figure("settled", b.settle)
			b.sync()
			puts := b.store.puts
			b.tree.write("0/50", []byte("changed"))
			b.figure("one file changed, imported", func() {
				_, err := b.d.Work(context.Background(), b.now)
				must(t, err)
			})
			b.figure("the root", func() {
				_, err := b.d.Directory(context.Background(), "")
				must(t, err)
			})
			b.figure("group and manifest", b.settle)
			// A leaf, a root, at most three shards, the directories, two stripes of parity, the manifest's parts.
			if n := b.store.puts - puts; n > 120 {
				t.Errorf("%d blocks were written", n)
			}
			for i := range 5 {
				b.tree.write(fmt.Sprintf("0/new%d", i), []byte("new"))
			}
			b.tree.remove("0/77")
			b.figure("the root with five new names, one gone", func() {
				_, err := b.d.Directory(context.Background(), "")
				must(t, err)
			})
			b.settle()
			if s := b.sync(); s.Root != b.tree.rebuild() {
				t.Error("the root is not what a full build gives")
			}
		})
	}
}

// TestAcrossTheSize of a plain directory, and back.
func TestAcrossTheSize(t *testing.T) {
	r := seeded(t)
	db := openDB(t, "")
	defer db.Close()
	b := newBox(t, db)
	b.tree.mkdir("d")
	long := func(i int) string { return fmt.Sprintf("d/%0200d", i) }
	n := 0
	for _, want := range acrossSizes {
		for ; n < want; n++ {
			b.tree.symlink(long(n), "x")
		}
		for ; n > want; n-- {
			b.tree.remove(long(n - 1))
		}
		for range acrossChanges {
			i := r.IntN(n)
			b.tree.remove(long(i))
			b.tree.symlink(long(i), fmt.Sprint(r.Uint64()))
			b.settle()
		}
		b.check(b.sync())
	}
	b.tree.rename("d", "e", false)
	b.check(b.sync())
	b.tree.remove("e")
	b.check(b.sync())
}
