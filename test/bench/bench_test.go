package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestMain lets the test binary be the raw stream's server, as main does.
func TestMain(m *testing.M) {
	if os.Getenv(rawServerEnv) != "" {
		os.Exit(exitCode(serveRaw(os.Stdin, os.Stdout)))
	}
	if os.Getenv(holderEnv) != "" {
		os.Exit(exitCode(swarm.Hold(os.Args[1:], os.Stdin, os.Stdout)))
	}
	os.Exit(m.Run())
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		in                []float64
		median, low, high float64
	}{
		{[]float64{2}, 2, 2, 2},
		{[]float64{3, 1}, 2, 1, 3},
		{[]float64{9, 1, 2}, 2, 1, 9},
		{[]float64{4, 1, 3, 2}, 2.5, 1, 4},
	} {
		if m, l, h := spread(c.in); m != c.median || l != c.low || h != c.high {
			t.Errorf("spread(%v) = %v, %v, %v", c.in, m, l, h)
		}
	}
}

func TestGoal(t *testing.T) {
	ours := sample{work: 6 << 20, took: 20 * time.Millisecond}
	ref := sample{work: 6 << 20, took: 10 * time.Millisecond}
	for _, c := range []struct {
		goal  goal
		value float64
		met   bool
		text  string
	}{
		{goal{atLeast, 0.5}, 0.5, true, "≥ 0.50"},
		{goal{atLeast, 0.6}, 0.5, false, "≥ 0.60"},
		{goal{timesMost, 2}, 2, true, "≤ 2.00 × time"},
		{goal{timesMost, 1.5}, 2, false, "≤ 1.50 × time"},
		{goal{withinMS, 20}, 20, true, "≤ 20.0 ms"},
		{goal{withinMS, 19}, 20, false, "≤ 19.0 ms"},
		{goal{withinS, 0.02}, 0.02, true, "≤ 0.0 s"},
		{goal{withinS, 0.01}, 0.02, false, "≤ 0.0 s"},
		{goal{withinMiB, 6}, 6, true, "≤ 6 MiB"},
		{goal{withinMiB, 5}, 6, false, "≤ 5 MiB"},
		{goal{shareMost, 6 << 20}, 6 << 20, true, "≤ 6291456.000"},
		{goal{shareMost, 0.55}, 6 << 20, false, "≤ 0.550"},
		{goal{withinCPU, 1}, 31457280000, false, "≤ 1.00 % of a core"},
	} {
		v := c.goal.value(ours, ref)
		if v != c.value || c.goal.met(v) != c.met || c.goal.String() != c.text {
			t.Errorf("%s: value %v, met %v", c.goal, v, c.goal.met(v))
		}
	}
}

func TestRandomPages(t *testing.T) {
	const bytes = 100 * page
	got := randomPages(bytes, 60, 1)
	if len(got) != 60 || !slices.Equal(got, randomPages(bytes, 60, 1)) || slices.Equal(got, randomPages(bytes, 60, 2)) {
		t.Fatalf("%d offsets, or not decided by the seed: %v", len(got), got)
	}
	seen := make(map[int64]bool)
	for _, off := range got {
		if off%page != 0 || off < 0 || off > bytes-page || seen[off] {
			t.Errorf("offset %d is not a page of its own", off)
		}
		seen[off] = true
	}
	if got := randomPages(3*page, 10, 1); len(got) != 3 {
		t.Errorf("%d pages of three", len(got))
	}
}

func TestReaders(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big")
	const size = 3<<20 + 5*page
	if err := writeRandom(big, size, 7); err != nil {
		t.Fatal(err)
	}
	if err := readBig(big, size); err != nil {
		t.Error(err)
	}
	if readBig(big, size-1) == nil {
		t.Error("a file of another length was not noticed")
	}
	if err := readPages(big, randomPages(size, 100, 1), 8); err != nil {
		t.Error(err)
	}
	if readPages(big, []int64{size}, 1) == nil {
		t.Error("a read past the end was not noticed")
	}
	b := &bench{opt: options{files: filesPerDir + 1}}
	if err := writeTree(filepath.Join(dir, "tree"), b.opt.files); err != nil {
		t.Fatal(err)
	}
	files := b.treeFiles(filepath.Join(dir, "tree"))
	if err := errors.Join(readSmall(files), statAll(files)); err != nil {
		t.Error(err)
	}
	if err := os.Truncate(files[filesPerDir], smallFile-1); err != nil {
		t.Fatal(err)
	}
	if readSmall(files) == nil || statAll(files) == nil {
		t.Error("a short file was not noticed")
	}
	if first, other := read(t, files[0]), read(t, files[1]); bytes.Equal(first, other) {
		t.Error("two files are equal")
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRawStream(t *testing.T) {
	raw, err := startRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{1, 5<<20 + 1} {
		if err := raw.read(t.Context(), n); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if raw.read(ended, 1<<30) == nil {
		t.Error("a read outlived its context")
	}
	if err := raw.close(); err != nil {
		t.Errorf("the server ended badly: %v", err)
	}
}

func TestRSSAnon(t *testing.T) {
	if got, err := rssAnon(os.Getpid()); err != nil || got < 64<<10 {
		t.Errorf("own memory: %d, %v", got, err)
	}
	if got, err := parseRSSAnon("VmRSS:\t 9 kB\nRssAnon:\t    12 kB\nRssFile:\t 1 kB\n"); err != nil || got != 12<<10 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, bad := range []string{"", "RssAnon:\t many kB\n"} {
		if _, err := parseRSSAnon(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestBallast(t *testing.T) {
	if l := newBallast(1 << 20); l.bytes != 0 && l.bytes != 1<<20 {
		t.Errorf("ballast of %d bytes", l.bytes)
	}
	l := ballast{bytes: 8 << 20, pieces: [][]byte{}}
	l.hold()
	l.hold()
	if len(l.held) != 1 || len(l.held[0]) != 8<<20 {
		t.Fatalf("holds %d pieces", len(l.held))
	}
	if rss, err := rssAnon(os.Getpid()); err != nil || rss < 8<<20 {
		t.Errorf("resident: %d, %v", rss, err)
	}
	l.release()
	l.end()
	if l.held != nil || l.pieces != nil {
		t.Error("still held")
	}
	if got := parseBuddies("Node 0, zone   Normal   3 1 0 0 0 0 0 0 2 7 9\nNode 0, zone DMA 1\n"); got != (3+2+2*256+1)*page {
		t.Errorf("%d bytes in fragments", got)
	}
	if free, err := memFree(); err != nil || free <= 0 {
		t.Errorf("free: %d, %v", free, err)
	}
}

func TestWatchKeepsThePeak(t *testing.T) {
	w := newWatch("")
	w.during("a row")
	w.add("me", os.Getpid())
	w.look()
	for w.cpu() < 50*time.Millisecond {
		cpuTime(os.Getpid()) // uses some
	}
	used := w.cpu()
	w.remove("me")
	if w.cpu() < used {
		t.Errorf("%v used, %v once the node had gone", used, w.cpu())
	}
	w.during("another")
	w.look()
	w.stop()
	if got := w.most(); got.bytes < 64<<10 || got.node != "me" || got.row != "a row" {
		t.Errorf("peak %+v", got)
	}
}

// testBench is a bench without a swarm.
func testBench(ctx context.Context, runs int) *bench {
	return &bench{ctx: ctx, opt: options{runs: runs}, progress: io.Discard, watch: newWatch("")}
}

func TestRowAlternates(t *testing.T) {
	b := testBench(t.Context(), 3)
	defer b.watch.stop()
	var order string
	half := func(name string, took time.Duration) func(*bench) sample {
		return func(*bench) sample { order += name; return sample{1, took} }
	}
	r := row{goal: goal{atLeast, 0.5}, unit: unitFiles, ours: half("o", 2), ref: half("r", 1),
		prepare: func(*bench) { order += "p" }, note: func(*bench) string { return "noted" }}
	res := b.row(r)
	if order != "por"+"ro"+"or" || res.notMeasured() != nil || res.note != "noted" || !slices.Equal(res.values(), []float64{.5, .5, .5}) {
		t.Errorf("order %s, values %v, note %q, error %v", order, res.values(), res.note, res.notMeasured())
	}
	order, r.oursFirst = "", true
	if b.row(r); order != "por"+"or"+"or" {
		t.Errorf("order %s although ours is to be first", order)
	}
	order, r.oursFirst, r.rounds = "", false, 2
	if res := b.row(r); order != "porro"+"roor"+"orro" || res.ours[0] != (sample{2, 4}) {
		t.Errorf("order %s of two rounds, %+v", order, res.ours)
	}
}

func TestRowThatFailsEndsAlone(t *testing.T) {
	b := testBench(t.Context(), 2)
	defer b.watch.stop()
	boom := errors.New("boom")
	bad := b.row(row{ours: func(b *bench) sample { b.must(boom, "read"); return sample{} }})
	if !errors.Is(bad.failed, boom) || len(bad.ours) != 0 || !b.Failed() {
		t.Errorf("error %v, %d samples", bad.failed, len(bad.ours))
	}
	none := b.row(row{needs: func(*bench) error { return boom }, ours: func(*bench) sample { t.Error("measured"); return sample{} }})
	if !errors.Is(none.lacks, boom) {
		t.Errorf("error %v", none.lacks)
	}
	good := b.row(row{ours: func(*bench) sample { return sample{1, 1} }, goal: goal{withinMS, 1}})
	if good.notMeasured() != nil || len(good.ours) != 2 {
		t.Errorf("the next row: error %v, %d samples", good.notMeasured(), len(good.ours))
	}
}

func TestRowEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := testBench(ctx, 3)
	defer b.watch.stop()
	runs := 0
	res := b.row(row{ours: func(*bench) sample { runs++; cancel(); return sample{1, 1} }})
	if !errors.Is(res.notMeasured(), context.Canceled) || runs != 1 {
		t.Errorf("%d runs, error %v", runs, res.notMeasured())
	}
}

func TestCleanupsRunBackwardsAndAll(t *testing.T) {
	b := testBench(t.Context(), 1)
	defer b.watch.stop()
	var order string
	b.Cleanup(func() { order += "1" })
	b.Cleanup(func() { order += "2"; b.Fatalf("no further") })
	b.Cleanup(func() { order += "3" })
	b.clean()
	b.clean()
	if order != "321" {
		t.Errorf("order %s", order)
	}
}

func TestTable(t *testing.T) {
	opt := options{runs: 2, size: 1 << 30, files: 10_000, dir: t.TempDir()}
	results := []result{
		{row: row{name: "fast", unit: unitBytes, goal: goal{atLeast, .9}}, ours: []sample{{2e9, time.Second}, {3e9, time.Second}}, ref: []sample{{2e9, time.Second}, {2e9, time.Second}}},
		{row: row{name: "slow", unit: unitFiles, goal: goal{timesMost, 2}}, ours: []sample{{1e4, 3 * time.Second}}, ref: []sample{{1e4, time.Second}}},
		{row: row{name: "big", unit: unitBytes, goal: goal{withinMiB, 400}}, ours: []sample{{work: 12 << 20}}, note: "home in fast"},
		{row: row{name: "broken", goal: goal{withinMS, 20}}, failed: errors.New("no such thing\nmore")},
	}
	var out bytes.Buffer
	printTable(&out, opt, results)
	for _, want := range []string{
		`fast +\| 2,500 MB/s +\| 2,000 MB/s +\| 1.25 +\| 1.00–1.50 +\| ≥ 0.90 +\| ok`,
		`slow +\| 3,333 files/s +\| 10,000 files/s +\| 3.00 × time \| .*\| ≤ 2.00 × time +\| short`,
		`big +\| 12 MiB +\| +\| +\| 12 MiB–12 MiB +\| ≤ 400 MiB +\| ok \(home in fast\)`,
		`broken +\| +\| +\| +\| +\| ≤ 20.0 ms +\| not measured: no such thing\n`,
	} {
		if !regexp.MustCompile(want).Match(out.Bytes()) {
			t.Errorf("no line like %s in\n%s", want, &out)
		}
	}
	out.Reset()
	if err := printJSON(&out, opt, results); err != nil {
		t.Fatal(err)
	}
	var got struct{ Rows []record }
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || len(got.Rows) != 4 {
		t.Fatalf("%d rows, %v", len(got.Rows), err)
	}
	if fast := got.Rows[0]; fast.Median != 1.25 || !fast.OK || !slices.Equal(fast.Holdfast, []float64{2e9, 3e9}) {
		t.Errorf("%+v", fast)
	}
	if got.Rows[1].OK || got.Rows[2].Median != 12 || got.Rows[3].Error == "" {
		t.Errorf("%+v", got.Rows[1:])
	}
}

func TestRowsHaveTheirParts(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range rows() {
		absolute := r.goal.kind == withinMS || r.goal.kind == withinS || r.goal.kind == withinMiB || r.goal.kind == shareMost || r.goal.kind == withinCPU
		if r.name == "" || seen[r.name] || r.ours == nil || absolute != (r.ref == nil) || r.goal.bound <= 0 || r.unit == "" {
			t.Errorf("row %q is incomplete or there twice", r.name)
		}
		seen[r.name] = true
	}
	var out bytes.Buffer
	if err := run(t.Context(), options{list: true}, &out, io.Discard); err != nil || strings.Count(out.String(), "\n") != len(seen) {
		t.Errorf("list: %v\n%s", err, &out)
	}
}

func TestOptions(t *testing.T) {
	opt, err := parseOptions([]string{"-size", "64MiB", "-only", "^add", "-runs", "2", "-dir", "x"}, io.Discard)
	if err != nil || opt.size != 64<<20 || opt.runs != 2 || !opt.only.MatchString("add x") || !filepath.IsAbs(opt.dir) {
		t.Errorf("%+v, %v", opt, err)
	}
	for _, bad := range [][]string{{"-size", "1KiB"}, {"-size", "many"}, {"-only", "("}, {"-runs", "0"}, {"-files", "0"}, {"what"}, {"-no"}} {
		if _, err := parseOptions(bad, io.Discard); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}
