package main

import (
	"os"
	"os/exec"
	"path/filepath"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// networkRows fetch from one peer over loopback into a node that has nothing.
func networkRows() []row {
	raw := func(b *bench) sample { return b.rawRead(b.opt.size) }
	has := func(b *bench) { b.bigAt() }
	return []row{
		{
			name:    "cold read from a peer, through the mount",
			unit:    unitBytes,
			goal:    goal{atLeast, 0.7},
			fills:   true,
			prepare: has,
			ours:    coldRead,
			ref:     raw,
		}, {
			name:    "cold get from a peer",
			unit:    unitBytes,
			goal:    goal{atLeast, 0.7},
			fills:   true,
			prepare: has,
			ours:    coldGet,
			ref:     raw,
		}, {
			name:    "first byte of a remote file",
			unit:    unitReads,
			goal:    goal{withinMS, 20},
			fills:   true,
			prepare: has,
			ours:    firstByte,
		},
		coldTarRow(),
	}
}

func coldRead(b *bench) sample {
	cid := b.bigAt()
	n := b.fresh()
	defer b.discard(n)
	file := filepath.Join(n.Mount(n.Name+".mnt", cid), cid)
	return timed(float64(b.opt.size), func() { b.must(readBig(file, b.opt.size), "cold read") })
}

func coldGet(b *bench) sample {
	cid := b.bigAt()
	n := b.fresh()
	defer b.discard(n)
	out := b.scratch()
	defer os.RemoveAll(out)
	s := timed(float64(b.opt.size), func() { b.output(n.Command("get", cid, "-o", out)) })
	st, err := os.Stat(out)
	b.must(err, "get")
	if st.Size() != b.opt.size {
		b.Fatalf("get wrote %d bytes of %d", st.Size(), b.opt.size)
	}
	return s
}

// firstByte opens a file of which the node knows the CID alone: its root has to
// be fetched too.
func firstByte(b *bench) sample {
	cid := b.bigAt()
	n := b.fresh()
	defer b.discard(n)
	file := filepath.Join(n.Mount(n.Name+".mnt", ""), cid)
	return timed(1, func() {
		f, err := os.Open(file)
		b.must(err, "first byte")
		defer f.Close()
		_, err = f.Read(make([]byte, 1))
		b.must(err, "first byte")
	})
}

// coldTarRow reads the tree with tar while nothing of it is local, and again
// when all is: by the same node, started again, so that neither the kernel's
// caches nor the node's memory help the second time.
func coldTarRow() row {
	var n *swarm.Node
	return row{
		name:      "tar of the tree from a peer, against local",
		unit:      unitFiles,
		goal:      goal{timesMost, 2},
		fills:     true,
		oursFirst: true,
		prepare:   func(b *bench) { b.treeAt() },
		ours: func(b *bench) sample {
			cid := b.treeAt()
			n = b.fresh()
			return b.tar(n.Mount(n.Name+".mnt", cid))
		},
		ref: func(b *bench) sample {
			defer b.discard(n)
			dir := b.swarm.Path(n.Name + ".mnt")
			b.output(n.Command("umount", dir))
			b.restart(n)
			return b.tar(n.Mount(n.Name+".again", b.treeAt()))
		},
	}
}

// counted counts and forgets. (tar sees /dev/null and does not read the files.)
type counted int64

func (c *counted) Write(p []byte) (int, error) {
	*c += counted(len(p))
	return len(p), nil
}

// tar measures `tar c` of the tree in dir.
func (b *bench) tar(dir string) sample {
	var out counted
	cmd := exec.Command("tar", "c", "-C", dir, ".")
	cmd.Stdout = &out
	s := timed(float64(b.opt.files), func() { b.command(cmd) })
	if int64(out) < int64(b.opt.files)*smallFile {
		b.Fatalf("tar wrote only %d bytes", out)
	}
	return s
}
