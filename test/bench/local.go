package main

import (
	"fmt"
	"strings"
)

// localRows read the big file from the node that has it whole.
func localRows() []row {
	return []row{
		rereadRow("re-read of the file", 0.95),
		firstReadRow("first read, sequential", 0.9),
		firstPagesRow("first read, random 4 KiB, queue depth 1", 4_000, 1),
		firstPagesRow("first read, random 4 KiB, queue depth 16", 16_000, 16),
	}
}

// withoutPassthroughRows are the same where the kernel may not read the node's
// files by itself.
func withoutPassthroughRows() []row {
	reread := rereadRow("re-read of the file, no passthrough", 0.95, noPassthrough)
	first := firstReadRow("first read, sequential, no passthrough", 0.6, noPassthrough)
	for _, r := range []*row{&reread, &first} {
		also := r.needs
		r.needs = func(b *bench) error {
			if !strings.Contains(b.output(b.home().Command("mount", "--help")), noPassthroughFlag) {
				return fmt.Errorf("this holdfast has no %s", noPassthroughFlag)
			}
			if also != nil {
				return also(b)
			}
			return nil
		}
	}
	return []row{reread, first}
}

const (
	noPassthroughFlag = "--passthrough"
	noPassthrough     = noPassthroughFlag + "=false"
)

func rereadRow(name string, bound float64, flags ...string) row {
	read := func(b *bench, path string) sample {
		return timed(float64(b.opt.size), func() { b.must(readBig(path, b.opt.size), name) })
	}
	return row{
		name:   name,
		unit:   unitBytes,
		goal:   goal{atLeast, bound},
		rounds: 4,
		prepare: func(b *bench) {
			if needsRoot(b) == nil {
				warmDisk(b, flags...) // a page cache filled by writing has smaller pages
				return
			}
			read(b, b.big())
			read(b, b.mountedBig(flags...))
		},
		ours: func(b *bench) sample { return read(b, b.mountedBig(flags...)) },
		ref:  func(b *bench) sample { return read(b, b.big()) },
	}
}

func firstReadRow(name string, bound float64, flags ...string) row {
	read := func(b *bench, path string) sample {
		b.dropCaches()
		return timed(float64(b.opt.size), func() { b.must(readBig(path, b.opt.size), name) })
	}
	return row{
		name:    name,
		unit:    unitBytes,
		goal:    goal{atLeast, bound},
		needs:   needsRoot,
		prepare: func(b *bench) { warmDisk(b, flags...) },
		ours:    func(b *bench) sample { return read(b, b.mountedBig(flags...)) },
		ref:     func(b *bench) sample { return read(b, b.big()) },
	}
}

func firstPagesRow(name string, count, depth int) row {
	var runs uint64
	read := func(b *bench, path string) sample {
		offsets := randomPages(b.opt.size, count, runs/2) // both halves of a run the same
		runs++
		b.dropCaches()
		return timed(float64(len(offsets)), func() { b.must(readPages(path, offsets, depth), name) })
	}
	return row{
		name:    name,
		unit:    unitReads,
		goal:    goal{atLeast, 0.9},
		rounds:  2,
		needs:   needsRoot,
		prepare: func(b *bench) { warmDisk(b) },
		ours:    func(b *bench) sample { return read(b, b.mountedBig()) },
		ref:     func(b *bench) sample { return read(b, b.big()) },
	}
}

// warmDisk reads both files once from the disk, so that whatever caches lie
// below this machine have seen them equally.
func warmDisk(b *bench, flags ...string) {
	paths := []string{b.mountedBig(flags...), b.big()}
	b.dropCaches()
	for _, path := range paths {
		b.must(readBig(path, b.opt.size), "read once")
	}
}
