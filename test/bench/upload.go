package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// uploadProviders is how many storage providers there are: one for each shard of the code.
const uploadProviders = codeK + codeM

// uploadRows copy what lies on the native file system into an upload directory, and wait until providers have signed for
// all of it.
func uploadRows() []row {
	tree := func(b *bench) (string, float64) { return b.tree(), float64(b.opt.files) }
	big := func(b *bench) (string, float64) { return b.big(), float64(b.opt.size) }
	sealed := func(b *bench) int64 { return b.opt.size / codeK * (codeK + codeM) }
	return []row{
		{
			name:    "cp -r of the tree into an upload directory, against cp -r + sync",
			unit:    unitFiles,
			goal:    goal{timesMost, 3},
			fills:   true,
			prepare: func(b *bench) { b.copyNative(tree, true) },
			ours:    func(b *bench) sample { copied, _ := b.upload(tree); return copied },
			ref:     func(b *bench) sample { return b.copyNative(tree, true) },
		}, {
			name:    fmt.Sprintf("upload of the tree to %d providers", uploadProviders),
			unit:    unitFiles,
			goal:    goal{withinS, 60},
			fills:   true,
			prepare: func(b *bench) { b.tree() },
			ours: func(b *bench) sample {
				_, synced := b.upload(tree)
				synced.work = float64(b.opt.files)
				return synced
			},
		}, {
			name:    "cp of the file into an upload directory, against cp",
			unit:    unitBytes,
			goal:    goal{atLeast, 0.5},
			fills:   true,
			prepare: func(b *bench) { b.copyNative(big, false) },
			ours:    func(b *bench) sample { copied, _ := b.upload(big); return copied },
			ref:     func(b *bench) sample { return b.copyNative(big, false) },
		}, {
			name:    fmt.Sprintf("upload of the file to %d providers, sealed bytes against a raw stream", uploadProviders),
			unit:    unitBytes,
			goal:    goal{atLeast, 0.3},
			fills:   true,
			prepare: func(b *bench) { b.big() },
			ours: func(b *bench) sample {
				_, synced := b.upload(big)
				synced.work = float64(sealed(b))
				return synced
			},
			ref: func(b *bench) sample { return b.rawRead(sealed(b)) },
		},
	}
}

// copyNative copies a source on the native file system, and with sync brings the copy to the disk.
func (b *bench) copyNative(source func(*bench) (path string, work float64), sync bool) sample {
	path, work := source(b)
	out := b.scratch()
	defer os.RemoveAll(out)
	return timed(work, func() {
		b.command(exec.Command("cp", "-r", path, out))
		if sync {
			b.syncDir(b.swarm.Dir)
		}
	})
}

// upload copies a source into the upload directory of a new node that knows as many new providers as the code has
// shards, and waits until all is with them: how long the copy took, and how long the rest from then on.
func (b *bench) upload(source func(*bench) (path string, work float64)) (copied, synced sample) {
	path, work := source(b)
	b.share.nodes++
	var all []*swarm.Node
	defer func() {
		for _, n := range all {
			b.discard(n)
		}
	}()
	for i := range uploadProviders {
		n := b.swarm.Start(fmt.Sprintf("provider%d.%d", b.share.nodes, i), "--provider", "--provider-quota", fmt.Sprint(4*b.opt.size+4<<30))
		b.watch.add(n.Name, n.Pid())
		all = append(all, n)
		if i > 0 {
			n.Connect(all[0])
		}
	}
	writer := b.empty()
	all = append(all, writer)
	writer.Connect(all[0])
	dir := writer.Mount(writer.Name+".up", "", "--upload", "--protect", fmt.Sprintf("%d,%d", codeK, codeM))
	copied = timed(work, func() { b.command(exec.Command("cp", "-r", path, filepath.Join(dir, "copy"))) })
	synced = timed(work, func() { b.output(writer.Command("sync", dir)) })
	b.output(writer.Command("umount", dir))
	return copied, synced
}
