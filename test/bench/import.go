package main

import (
	"os"
	"os/exec"
)

// importRows add what lies on the native file system to a node that has
// nothing. Both sides end with everything on disk.
func importRows() []row {
	return []row{
		importRow("add of the file, against cp + sync", unitBytes, 0.6, func(b *bench) (string, float64) {
			return b.big(), float64(b.opt.size)
		}),
		importRow("add of the tree, against cp -r + sync", unitFiles, 0.5, func(b *bench) (string, float64) {
			return b.tree(), float64(b.opt.files)
		}),
	}
}

// importRow measures the import of source, which is in the page cache.
func importRow(name string, u unit, bound float64, source func(*bench) (path string, work float64)) row {
	native := func(b *bench) sample {
		path, work := source(b)
		out := b.scratch()
		if path != b.share.tree { // which stays: ext4 is slow to make files where many were just removed
			defer os.Remove(out)
		}
		return timed(work, func() {
			b.command(exec.Command("cp", "-r", path, out))
			b.syncDir(b.swarm.Dir)
		})
	}
	return row{
		name:    name,
		unit:    u,
		goal:    goal{atLeast, bound},
		fills:   true,
		prepare: func(b *bench) { native(b) },
		ours: func(b *bench) sample {
			path, work := source(b)
			n := b.empty()
			defer b.discard(n)
			return timed(work, func() {
				b.add(n, path)
				b.syncDir(n.Repo)
			})
		},
		ref: native,
	}
}
