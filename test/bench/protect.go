package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// holderEnv makes the program a peer that keeps columns of a protected dataset.
const holderEnv = "HOLDFAST_BENCH_HOLDER"

// The code that is measured, and its columns: all, and those that are left when any m are lost. Two of data
// are the worst, as all that lay in them has to be computed.
const (
	codeK, codeM = 4, 2
	allColumns   = "0,1,2,3,4,5"
	leftColumns  = "2,3,4,5"
)

// protectRows read what is protected, and say what protection costs.
func protectRows() []row {
	var rebuilt int64
	most := float64(codeM) / codeK * 1.1
	return []row{
		{
			name:    "cold read, 2 of each 6 blocks lost, against none",
			unit:    unitBytes,
			goal:    goal{atLeast, 0.6},
			fills:   true,
			prepare: func(b *bench) { b.holder(allColumns); b.holder(leftColumns) },
			ours: func(b *bench) sample {
				s, blocks := b.readFrom(leftColumns)
				rebuilt = blocks
				if want := b.opt.size >> 20 / codeK; blocks < want {
					b.Errorf("%d blocks were rebuilt, %d at least were lost", blocks, want)
				}
				return s
			},
			ref:  func(b *bench) sample { s, _ := b.readFrom(allColumns); return s },
			note: func(*bench) string { return fmt.Sprintf("%d blocks rebuilt", rebuilt) },
		},
		parityRow("parity of Go's source", most, func(b *bench) string {
			return filepath.Join(strings.TrimSpace(b.output(exec.Command("go", "env", "GOROOT"))), "src")
		}),
		parityRow("parity of the tree", most, (*bench).tree),
		parityRow("parity of the file", most, (*bench).big),
	}
}

// parityRow is the parity of what lies at a path, in bytes for each byte of it.
func parityRow(name string, most float64, source func(*bench) string) row {
	var parity, data int64
	return row{
		name: name,
		unit: unitBytes,
		goal: goal{shareMost, most},
		ours: func(b *bench) sample {
			parity, data = b.parity(b.protect(source(b)))
			return sample{work: float64(parity) / float64(data)}
		},
		note: func(*bench) string { return fmt.Sprintf("%d MiB for %d", parity>>20, data>>20) },
	}
}

// protect has home protect a path and returns the manifest's CID.
func (b *bench) protect(path string) string {
	return strings.TrimSpace(b.output(b.home().Command("add", "-q", "--protect", fmt.Sprintf("%d,%d", codeK, codeM), path)))
}

// parity sums up a manifest that home has.
func (b *bench) parity(manifest string) (parity, data int64) {
	c, err := cid.Decode(manifest)
	b.must(err, "read the manifest's CID")
	h, err := swarm.NewHolder(b.swarm.Mkdir("looker"))
	b.must(err, "look at the manifest")
	defer h.Close()
	b.must(h.Connect(b.ctx, b.home().Identity().Addresses[0]), "look at the manifest")
	m, err := h.Manifest(b.ctx, c)
	b.must(err, "look at the manifest")
	for s, err := range m.Stripes(b.ctx) {
		b.must(err, "look at the manifest")
		for _, p := range s.Parity {
			parity += int64(p.Bytes)
		}
	}
	return parity, m.Bytes()
}

// protectedAt is the CID of the big file's manifest, which home has.
func (b *bench) protectedAt() string {
	if b.share.manifest == "" {
		b.share.manifest = b.protect(b.big())
	}
	return b.share.manifest
}

// holder is the address of a process that keeps these columns of the protected big file.
func (b *bench) holder(columns string) string {
	if address, ok := b.share.holders[columns]; ok {
		return address
	}
	manifest, from := b.protectedAt(), b.home().Identity().Addresses[0]
	self, err := os.Executable()
	b.must(err, "start a holder")
	cmd := exec.Command(self, b.swarm.Mkdir("holder"+columns), manifest, columns, from)
	cmd.Env = append(os.Environ(), holderEnv+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	b.must(err, "start a holder")
	stdout, err := cmd.StdoutPipe()
	b.must(err, "start a holder")
	b.must(cmd.Start(), "start a holder")
	b.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			b.Errorf("a holder ended: %w", err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	b.must(err, "wait for a holder")
	if b.share.holders == nil {
		b.share.holders = make(map[string]string)
	}
	b.share.holders[columns] = strings.TrimSpace(line)
	return b.share.holders[columns]
}

// readFrom reads the big file through the mount of a node that has nothing and knows who keeps these columns.
// It returns how many blocks were rebuilt.
func (b *bench) readFrom(columns string) (s sample, rebuilt int64) {
	address, manifest := b.holder(columns), b.protectedAt()
	n := b.empty()
	defer b.discard(n)
	n.Must("connect", address)
	dir := n.Mount(n.Name+".mnt", manifest)
	file := filepath.Join(dir, b.bigAt())
	s = timed(float64(b.opt.size), func() { b.must(readBig(file, b.opt.size), "cold read") })
	return s, n.Figure("recovery.blocks")
}
