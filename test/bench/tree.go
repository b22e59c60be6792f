package main

import "os/exec"

// treeRows walk and read the tree, mounted by the node that has it, when the
// kernel has seen it once.
func treeRows() []row {
	return []row{
		treeRow("find, second time", 0.8, 10, func(b *bench, root string, _ []string) {
			b.command(exec.Command("find", root))
		}),
		treeRow("ls -lR, second time", 0.8, 5, func(b *bench, root string, _ []string) {
			b.command(exec.Command("ls", "-lR", root))
		}),
		treeRow("stat of every file, second time", 0.8, 20, func(b *bench, _ string, files []string) {
			b.must(statAll(files), "stat")
		}),
		treeRow("read of every file, second time", 0.25, 5, func(b *bench, _ string, files []string) {
			b.must(readSmall(files), "read")
		}),
	}
}

// treeRow measures walk, several times over because once is short.
func treeRow(name string, bound float64, times int, walk func(b *bench, root string, files []string)) row {
	measure := func(b *bench, root string) sample {
		files := b.treeFiles(root)
		return timed(float64(times*len(files)), func() {
			for range times {
				walk(b, root, files)
			}
		})
	}
	first := func(b *bench, root string) { walk(b, root, b.treeFiles(root)) }
	return row{
		name: name,
		unit: unitFiles,
		goal: goal{atLeast, bound},
		prepare: func(b *bench) {
			first(b, b.tree())
			first(b, b.mountedTree())
		},
		ours: func(b *bench) sample { return measure(b, b.mountedTree()) },
		ref:  func(b *bench) sample { return measure(b, b.tree()) },
	}
}
