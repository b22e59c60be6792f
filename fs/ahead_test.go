package fs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/fs/unixfs"
)

const kernelRead = 128 << 10

// covered feeds reads to a sequence and returns how many bytes it asked for, checking that it asks for none twice.
func covered(t *testing.T, s *sequence, offsets []uint64, n uint64) (total uint64) {
	t.Helper()
	asked := map[uint64]bool{}
	for _, off := range offsets {
		from, to := s.observe(off, min(n, s.size-off))
		if to > s.size || from > to || to-from > s.max {
			t.Fatalf("asked for [%d, %d) of %d", from, to, s.size)
		}
		for at := from; at < to; at += kernelRead {
			if asked[at] {
				t.Fatalf("asked twice for %d", at)
			}
			asked[at] = true
		}
		total += to - from
	}
	return total
}

func steps(size, n uint64) (offsets []uint64) {
	for off := uint64(0); off < size; off += n {
		offsets = append(offsets, off)
	}
	return offsets
}

func TestSequenceStartsAtTheSecondRead(t *testing.T) {
	s := &sequence{max: 32 << 20, size: 1 << 30}
	if from, to := s.observe(0, kernelRead); from != to {
		t.Errorf("after one read it asks for [%d, %d)", from, to)
	}
	if from, to := s.observe(kernelRead, kernelRead); from != 2*kernelRead || to-from != firstWindow {
		t.Errorf("after two reads it asks for [%d, %d)", from, to)
	}
}

func TestSequenceStaysAhead(t *testing.T) {
	const size = 1 << 28
	s := &sequence{max: 32 << 20, size: size}
	if total := covered(t, s, steps(size, kernelRead), kernelRead); total != size-2*kernelRead {
		t.Errorf("asked for %d of %d bytes", total, size)
	}
	if s.window != s.max {
		t.Errorf("the window grew to %d", s.window)
	}
}

// TestSequenceTakesReadsOutOfOrder swaps reads as the kernel's own readahead does.
func TestSequenceTakesReadsOutOfOrder(t *testing.T) {
	const size = 1 << 28
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		offsets := steps(size, kernelRead)
		for at := 0; at+8 <= len(offsets); at += 8 {
			r.Shuffle(8, func(i, j int) { offsets[at+i], offsets[at+j] = offsets[at+j], offsets[at+i] })
		}
		s := &sequence{max: 32 << 20, size: size}
		if total := covered(t, s, offsets, kernelRead); total < size-4<<20 {
			t.Errorf("seed %d: asked for %d of %d bytes", seed, total, size)
		}
	}
}

func TestSequenceLeavesRandomReadersAlone(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		s := &sequence{max: 32 << 20, size: 1 << 30}
		total := uint64(0)
		for range 2000 {
			from, to := s.observe(r.Uint64N(s.size/4096)*4096, 4096)
			total += to - from
		}
		if total > 8*firstWindow {
			t.Errorf("seed %d: 2000 random reads asked for %d bytes", seed, total)
		}
	}
	backwards := &sequence{max: 32 << 20, size: 1 << 30}
	for off := uint64(64 << 20); off > 0; off -= kernelRead {
		if from, to := backwards.observe(off, kernelRead); from != to {
			t.Fatalf("a backward reader at %d makes it ask for [%d, %d)", off, from, to)
		}
	}
}

func TestSequenceFollowsAJump(t *testing.T) {
	s := &sequence{max: 32 << 20, size: 1 << 40}
	for _, start := range []uint64{0, 1 << 30, 1 << 39} {
		total := uint64(0)
		for i := range uint64(100) {
			from, to := s.observe(start+i*kernelRead, kernelRead)
			if to > from && from < start {
				t.Fatalf("behind the jump to %d it asks for [%d, %d)", start, from, to)
			}
			total += to - from
		}
		if total < 100*kernelRead {
			t.Errorf("after the jump to %d it asks for %d bytes", start, total)
		}
	}
}

// entriesOf makes n files of a directory.
func entriesOf(n int) []unixfs.Entry {
	entries := make([]unixfs.Entry, n)
	for i := range entries {
		entries[i] = unixfs.Entry{Name: fmt.Sprintf("%08x", uint32(i)*2654435761), TSize: 1000}
	}
	return entries
}

func TestOrderFollowsEveryWay(t *testing.T) {
	for _, way := range []int{0, 1, 2} {
		o := newOrder(entriesOf(2000), 42, 32<<20)
		seen, asked := 0, map[string]bool{}
		for rank, at := range o.ways[way].entry {
			name := o.entries[at].Name
			if asked[name] {
				seen++
			}
			next := o.observe(name)
			if rank == 0 && len(next) > 0 {
				t.Errorf("way %d: one file makes it ask for %d", way, len(next))
			}
			for _, e := range next {
				if asked[e.Name] {
					t.Fatalf("way %d: asked twice for %s", way, e.Name)
				}
				asked[e.Name] = true
			}
		}
		if seen < 1990 {
			t.Errorf("way %d: %d of 2000 files were asked for ahead", way, seen)
		}
	}
}

func TestOrderLeavesRandomOpenersAlone(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	o := newOrder(entriesOf(20_000), 42, 32<<20)
	total := 0
	for range 1000 {
		total += len(o.observe(o.entries[r.IntN(len(o.entries))].Name))
	}
	if total > 200 {
		t.Errorf("1000 files opened at random make it ask for %d", total)
	}
}

func TestOrderKeepsToItsBudget(t *testing.T) {
	entries := entriesOf(100)
	for i := range entries {
		entries[i].TSize = 1 << 40 // counts as what is fetched of it
	}
	o := newOrder(entries, 42, 4<<20)
	for rank, e := range entries {
		if next := o.observe(e.Name); len(next) > 4 {
			t.Fatalf("at file %d it asks for %d files of 1 MiB, with 4 MiB to spend", rank, len(next))
		}
	}
}

func TestReadaheadOfAMount(t *testing.T) {
	s := mountChild(t, childSpec{Tree: "big", Away: true, Delay: 10 * time.Millisecond})
	f, err := os.Open(s.path("big"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 4096)
	for _, leaf := range rand.New(rand.NewPCG(3, 4)).Perm(64) {
		if _, err := f.ReadAt(buf, int64(leaf)*leafBytes+leafBytes/2); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.stats().AheadBytes; n > 8*firstWindow {
		t.Errorf("a random reader made it ask for %d bytes", n)
	}
	s.tell("away")
	checkFile(t, s.path("big"), random(64*leafBytes, 1))
	if n := s.stats().AheadBytes; n < 32*leafBytes {
		t.Errorf("a sequential reader made it ask for %d bytes", n)
	}
	if n := s.number("most"); n != 1 {
		t.Errorf("a block was fetched %d times", n)
	}
}

func TestReadaheadOfATree(t *testing.T) {
	for _, c := range []struct{ tree, script string }{
		{"many", `tar -C "$1" -cf - . | cat >/dev/null`},
		{"many", `cp -r "$1" "$2"/copy && diff -r "$1" "$2"/copy`},
		{"source", `grep -r nothing "$1" || true`},
	} {
		s := mountChild(t, childSpec{Tree: c.tree, Away: true})
		sh(t, c.script, s.dir, t.TempDir())
		opened, ahead := s.stats().Opens, s.number("ahead")
		if uint64(ahead) < min(opened, 2000)/2 {
			t.Errorf("%s: of %d files opened, %d blocks were asked for ahead", c.script, opened, ahead)
		}
	}
	for tree, most := range map[string]int{"many": 0, "source": 16} { // directories are looked into again
		again := mountChild(t, childSpec{Tree: tree})
		sh(t, `tar -C "$1" -cf - . | cat >/dev/null`, again.dir)
		again.tell("away")
		sh(t, `tar -C "$1" -cf - . | cat >/dev/null`, again.dir)
		if n := again.number("ahead"); n > most {
			t.Errorf("%s: of files that the kernel has, %d blocks were asked for ahead", tree, n)
		}
	}
	s := mountChild(t, childSpec{Tree: "many", Away: true})
	sh(t, `ls -lR "$1"; find "$1"`, s.dir)
	if n := s.number("ahead"); n != 0 {
		t.Errorf("listing raw files asked for %d blocks", n)
	}
}
