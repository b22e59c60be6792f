package erasure

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// testCID returns the n-th CID of a series; the first two bytes of its digest are no more than others.
func testCID(tb testing.TB, codec uint64, n uint64) cid.Cid {
	tb.Helper()
	return sumCID(codec, binary.BigEndian.AppendUint64(nil, n))
}

func plan(tb testing.TB, k int, blocks []Shard) ([][]Shard, PlannerStats) {
	tb.Helper()
	var stripes [][]Shard
	p, err := NewPlanner(k, nil, func(data []Shard) error {
		stripes = append(stripes, data)
		return nil
	})
	if err != nil {
		tb.Fatalf("planner: %v", err)
	}
	for _, b := range blocks {
		if err := p.Add(b); err != nil {
			tb.Fatalf("plan %v: %v", b, err)
		}
		if len(p.pending) > MaxPending(k) {
			tb.Fatalf("%d blocks pending", len(p.pending))
		}
	}
	if err := p.Close(); err != nil {
		tb.Fatalf("close: %v", err)
	}
	return stripes, p.Stats()
}

// fakeStripe gives planned blocks parity shards with made up CIDs.
func fakeStripe(data []Shard, m int) Stripe {
	s := Stripe{Data: data, Parity: make([]Shard, m)}
	for i := range s.Parity {
		s.Parity[i] = Shard{sumCID(cid.Raw, append([]byte{byte(i)}, data[0].CID.Bytes()...)), widest(data)}
	}
	return s
}

// series names blocks of the given lengths.
func series(tb testing.TB, lengths []int) []Shard {
	tb.Helper()
	blocks := make([]Shard, len(lengths))
	for i, n := range lengths {
		blocks[i] = Shard{testCID(tb, cid.Raw, uint64(i)), n}
	}
	return blocks
}

// addFile appends the lengths of a file's blocks as the profile cuts it: leaves of 1 MiB and inner
// nodes of up to 1024 links of 50 bytes.
func addFile(lengths []int, size int64) []int {
	leaves := 0
	for rest := size; rest > 0 || leaves == 0; rest -= 1 << 20 {
		lengths = append(lengths, int(min(rest, 1<<20)))
		leaves++
	}
	for nodes := leaves; nodes > 1; nodes = (nodes + 1023) / 1024 {
		for left := nodes; left > 0; left -= 1024 {
			lengths = append(lengths, 12+50*min(left, 1024))
		}
	}
	return lengths
}

// addTree appends the lengths of the blocks of all files and directories below dir.
func addTree(tb testing.TB, lengths []int, dir string) []int {
	tb.Helper()
	entries := make(map[string]int)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		entries[filepath.Dir(path)] += 50 + len(d.Name())
		if d.IsDir() {
			entries[path] += 4
			return nil
		}
		info, err := d.Info()
		if err == nil && info.Mode().IsRegular() {
			lengths = addFile(lengths, info.Size())
		}
		return err
	})
	if err != nil {
		tb.Fatalf("walk %s: %v", dir, err)
	}
	// In order of names, as maps have none.
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			lengths = append(lengths, min(entries[path], 256<<10))
		}
		return nil
	})
	return lengths
}

func goroot(tb testing.TB) string {
	tb.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		tb.Fatalf("go env GOROOT: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "src")
}

// Parity of real trees stays within a tenth above m/k of their bytes, whatever the code.
func TestParityOverheadOfTrees(t *testing.T) {
	many := make([]int, 0, 10100)
	for range 10000 {
		many = addFile(many, 10<<10)
	}
	many = append(many, 256*50) // a directory of that size is a HAMT: its root and 256 below
	for range 256 {
		many = append(many, 40*55)
	}
	r := seeded(t)
	var mixed []int
	for range 3000 {
		mixed = addFile(mixed, int64(1)<<r.IntN(22)+int64(r.IntN(5000)))
	}
	mixed = addFile(mixed, 300<<20+5)
	for _, tree := range []struct {
		name    string
		lengths []int
		codes   [][2]int
	}{
		{"GOROOT/src", addTree(t, nil, goroot(t)), codes[:6]},
		{"10,000 × 10 KiB", many, codes},
		{"1 GiB file", addFile(nil, 1<<30), codes},
		{"random mix", mixed, codes[:6]},
	} {
		for _, km := range tree.codes {
			k, m := km[0], km[1]
			blocks := series(t, tree.lengths)
			_, stats := plan(t, k, blocks)
			ratio := float64(stats.Padded*int64(k)) / float64(stats.Bytes)
			t.Logf("%s: %d blocks, %d MiB, (%d,%d): parity %.4f × m/k", tree.name, stats.Blocks, stats.Bytes>>20, k, m, ratio)
			if ratio > 1.1 {
				t.Errorf("%s with (%d,%d): parity is %.3f × m/k of the data", tree.name, k, m, ratio)
			}
		}
	}
}

// randomLengths returns lengths of a random kind of dataset.
func randomLengths(r *rand.Rand) []int {
	lengths := make([]int, r.IntN(3000))
	base, kind := 1+r.IntN(MaxBlock), r.IntN(4)
	for i := range lengths {
		switch kind {
		case 0:
			lengths[i] = r.IntN(MaxBlock + 1)
		case 1:
			lengths[i] = base
		case 2:
			lengths[i] = min(MaxBlock, r.IntN(2<<r.IntN(21)))
		default:
			lengths[i] = max(0, base-r.IntN(3))
		}
	}
	return lengths
}

func TestPlanOfAnything(t *testing.T) {
	r := seeded(t)
	for range 60 {
		k, m := 1+r.IntN(20), r.IntN(5)
		blocks := series(t, randomLengths(r))
		given := blocks
		for range r.IntN(20) { // some occur twice, some under another codec
			if len(blocks) > 0 {
				again := blocks[r.IntN(len(blocks))]
				if r.IntN(2) == 0 {
					again.CID = cid.NewCidV1(cid.DagProtobuf, again.CID.Hash())
				}
				given = append(given, again)
			}
		}
		stripes, stats := plan(t, k, given)
		checkPlan(t, k, blocks, stripes, stats)
		second, _ := plan(t, k, given)
		if !reflect.DeepEqual(stripes, second) {
			t.Fatal("the same blocks gave another plan")
		}
		checkGroups(t, k, m, stripes)
	}
}

func checkPlan(tb testing.TB, k int, blocks []Shard, stripes [][]Shard, stats PlannerStats) {
	tb.Helper()
	planned, longest := make(map[cid.Cid]int), 0
	for i, s := range stripes {
		if len(s) < 1 || len(s) > k || len(s) < k && i < len(stripes)-1 {
			tb.Fatalf("stripe %d of %d has %d blocks, k = %d", i, len(stripes), len(s), k)
		}
		for _, b := range s {
			if _, twice := planned[b.CID]; twice {
				tb.Fatalf("%s is planned twice", b.CID)
			}
			planned[b.CID] = b.Bytes
			longest = max(longest, b.Bytes)
		}
	}
	for _, b := range blocks {
		if n, ok := planned[b.CID]; !ok || n != b.Bytes {
			tb.Fatalf("%v is planned with length %d: %v", b, n, ok)
		}
	}
	if len(planned) != len(blocks) || stats.Blocks != int64(len(blocks)) || stats.Stripes != int64(len(stripes)) {
		tb.Fatalf("%d blocks planned of %d: %+v", len(planned), len(blocks), stats)
	}
	if bound := float64(stats.Bytes)*1.0625 + float64(k*longest); float64(stats.Padded*int64(k)) > bound {
		tb.Fatalf("padded data of %d bytes, bound %.0f", stats.Padded*int64(k), bound)
	}
}

func checkGroups(tb testing.TB, k, m int, stripes [][]Shard) {
	tb.Helper()
	count := 0
	g, err := NewGrouper(k, m, func(g Group) error {
		count += len(g.Stripes)
		has := make(map[string]bool)
		columns := g.Columns()
		if len(columns) != len(g.Chunks) {
			tb.Fatalf("%d columns, %d chunks", len(columns), len(g.Chunks))
		}
		for j, column := range columns {
			id, descriptor, err := column.Encode()
			if err != nil || id != g.Chunks[j] || column.Bytes() > MaxChunk {
				tb.Fatalf("column %d of %d bytes: %s, %v", j, column.Bytes(), id, err)
			}
			if again, err := DecodeChunk(descriptor); err != nil || !reflect.DeepEqual(again, column) {
				tb.Fatalf("descriptor: %v", err)
			}
			for _, s := range column {
				if m > 0 && k == 1 || s.Bytes == 0 {
					continue
				}
				if has[string(s.CID.Hash())] {
					tb.Fatalf("%s is in a group twice", s.CID)
				}
				has[string(s.CID.Hash())] = true
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatalf("grouper: %v", err)
	}
	for _, s := range stripes {
		if err := g.Add(fakeStripe(s, m)); err != nil {
			tb.Fatalf("group: %v", err)
		}
	}
	if err := g.Flush(); err != nil || count != len(stripes) {
		tb.Fatalf("%d stripes grouped of %d: %v", count, len(stripes), err)
	}
}

// In a large file each provider holds one of any k neighbours, and no stripe has two neighbours.
func TestNeighboursAreApart(t *testing.T) {
	lengths := make([]int, 4*shallowRow*10)
	for i := range lengths {
		lengths[i] = 1 << 20
	}
	stripes, _ := plan(t, 4, series(t, lengths))
	where := make(map[cid.Cid][2]int)
	for i, s := range stripes {
		for j, b := range s {
			where[b.CID] = [2]int{i, j}
		}
	}
	for n := range lengths[:len(lengths)-1] {
		a, b := where[testCID(t, cid.Raw, uint64(n))], where[testCID(t, cid.Raw, uint64(n+1))]
		if a[0] == b[0] || a[1] == b[1] {
			t.Errorf("blocks %d and %d are at %v and %v", n, n+1, a, b)
		}
	}
}

func TestPlannerErrors(t *testing.T) {
	if _, err := NewPlanner(0, nil, nil); !errors.Is(err, ErrShape) {
		t.Errorf("k=0: got %v", err)
	}
	full := errors.New("full")
	p, err := NewPlanner(1, nil, func([]Shard) error { return full })
	if err != nil {
		t.Fatalf("planner: %v", err)
	}
	inline, err := mh.Sum([]byte("inline"), mh.IDENTITY, -1)
	if err != nil {
		t.Fatalf("hash: %v", err)
	}
	if err := p.Add(Shard{cid.NewCidV1(cid.Raw, inline), 6}); err != nil || p.Stats().Inline != 1 {
		t.Errorf("inline block: %v, %+v", err, p.Stats())
	}
	if err := p.Add(Shard{testCID(t, cid.Raw, 1), 6}); err != nil {
		t.Errorf("block: %v", err)
	}
	if err := p.Close(); !errors.Is(err, full) {
		t.Errorf("emit failed: got %v", err)
	}
	if err := p.Add(Shard{testCID(t, cid.Raw, 2), 6}); !errors.Is(err, full) {
		t.Errorf("after an error: got %v", err)
	}
	for _, bad := range []Shard{{}, {testCID(t, cid.Raw, 1), -1}, {testCID(t, cid.Raw, 1), MaxBlock + 1}, {testCID(t, cid.Libp2pKey, 1), 1}} {
		p, err := NewPlanner(1, nil, nil)
		if err != nil {
			t.Fatalf("planner: %v", err)
		}
		if err := p.Add(bad); !errors.Is(err, ErrShape) {
			t.Errorf("%v: got %v, want ErrShape", bad, err)
		}
	}
}

// A set that forgets costs parity, never two shards of one stripe or group.
func TestRecentForgets(t *testing.T) {
	r := NewRecent(4)
	for i := range uint64(8) {
		if again, _ := r.Add(testCID(t, cid.Raw, i)); again {
			t.Errorf("%d was not there before", i)
		}
	}
	for i, want := range map[uint64]bool{7: true, 4: true} {
		if again, _ := r.Add(testCID(t, cid.DagProtobuf, i)); again != want {
			t.Errorf("%d: again %v, want %v", i, again, want)
		}
	}
	if len(r.now)+len(r.old) > 8 {
		t.Errorf("%d remembered", len(r.now)+len(r.old))
	}
	var stripes [][]Shard
	p, err := NewPlanner(2, NewRecent(1), func(data []Shard) error {
		stripes = append(stripes, data)
		return nil
	})
	if err != nil {
		t.Fatalf("planner: %v", err)
	}
	for i := range uint64(1000) {
		if err := p.Add(Shard{testCID(t, cid.Raw, i*i%97), 100}); err != nil {
			t.Fatalf("plan: %v", err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	checkGroups(t, 2, 1, stripes)
}
