package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

// demoLosses is how many providers are killed: as many as there are parity shards in a stripe.
const demoLosses = 2

// loseNodes takes the writer's machine away, and two providers.
func (d *demo) loseNodes(ctx context.Context) error {
	d.act("The writer's machine is lost, and two providers")
	err := d.story.Step("the writer's node is stopped, its mount ends", func() (string, error) {
		return fmt.Sprintf("pid %d", d.writer.cmd.Process.Pid), d.writer.stop()
	})
	if err != nil {
		return fmt.Errorf("demo: stop the writer: %w", err)
	}
	err = d.story.Step("its repo is deleted", func() (string, error) {
		files, size, err := listFiles(ctx, d.writer.repo)
		return fmt.Sprintf("%s, %s", ui.Count(uint64(len(files)), "file"), ui.Bytes(uint64(size))), errors.Join(err, os.RemoveAll(d.writer.repo))
	})
	if err != nil {
		return fmt.Errorf("demo: delete the writer's repo: %w", err)
	}
	// A parity shard is as long as the longest of its stripe: in a small tree, who keeps most keeps nothing else.
	// Those that come next have data, which is then to be rebuilt.
	for _, n := range d.byKept()[demoLosses : 2*demoLosses] {
		err := d.story.Step(fmt.Sprintf("kill -9 %d: %s", n.cmd.Process.Pid, n.name), func() (string, error) {
			return ui.Bytes(uint64(d.kept[n.id.ID].signedBytes)) + " of chunks", n.kill()
		})
		if err != nil {
			return fmt.Errorf("demo: kill %s: %w", n.name, err)
		}
	}
	return nil
}

// byKept is the providers, those that keep most first.
func (d *demo) byKept() []*demoNode {
	all := slices.Clone(d.providers)
	slices.SortStableFunc(all, func(a, b *demoNode) int {
		return cmp.Compare(d.kept[b.id.ID].signedBytes, d.kept[a.id.ID].signedBytes)
	})
	return all
}

// readBack mounts on a new node what it knows nothing of but the manifest's CID.
func (d *demo) readBack(ctx context.Context) error {
	d.act("A fresh node mounts the manifest's CID")
	left := d.byKept()
	knows := left[len(left)-1]
	err := d.story.Step("a node starts, its store empty", func() (line string, err error) {
		d.reader, err = d.newcomer(ctx, "reader", knows)
		return "it knows " + knows.name + " alone", err
	})
	if err != nil {
		return fmt.Errorf("demo: start the reader: %w", err)
	}
	err = d.story.Step("holdfast mount "+ui.Short(d.synced.Manifest), func() (string, error) {
		_, err := d.reader.Mount(ctx, api.MountRequest{CID: d.synced.Manifest, Dir: d.mount})
		return "on " + d.mount, err
	})
	if err != nil {
		return fmt.Errorf("demo: mount: %w", err)
	}
	if err := d.list(ctx); err != nil {
		return err
	}
	if err := d.readRandom(ctx); err != nil {
		return err
	}
	if err := d.compare(ctx); err != nil {
		return err
	}
	return d.search(ctx)
}

// list shows the beginning of the tree.
func (d *demo) list(ctx context.Context) error {
	dir := filepath.Join(d.mount, d.treeName)
	var out beginning
	err := d.story.Step("ls", func() (string, error) {
		cmd := command(ctx, "ls", dir)
		cmd.Stdout = &out
		return "", tool(cmd)
	})
	if err != nil {
		return err
	}
	names := strings.Split(strings.TrimSpace(out.String()), "\n")
	d.story.Show(ui.Printable(strings.Join(names[:min(len(names), 8)], "  ")) + "  … " + ui.Count(uint64(len(names)), "name"))
	return nil
}

// readRandom reads the random file.
func (d *demo) readRandom(ctx context.Context) error {
	path := filepath.Join(d.mount, demoFile)
	err := d.story.Step("first byte of the random file", func() (string, error) {
		return "", tool(command(ctx, "head", "-c", "1", path))
	})
	if err != nil {
		return err
	}
	start := time.Now()
	return d.story.Step("sha256sum of the random file", func() (string, error) {
		var out beginning
		cmd := command(ctx, "sha256sum", path)
		cmd.Stdout = &out
		if err := tool(cmd); err != nil {
			return "", err
		}
		if sum, _, _ := strings.Cut(out.String(), " "); sum != d.fileSum {
			return "", fmt.Errorf("demo: the mount shows other bytes: sha256 %s, not %s", sum, d.fileSum)
		}
		return "equal, at " + ui.Rate(uint64(d.fileMiB)<<20, time.Since(start)), nil
	})
}

// compare compares all that was copied with what is mounted, and tells what had to be rebuilt.
func (d *demo) compare(ctx context.Context) error {
	before, err := d.reader.Status(ctx)
	if err != nil {
		return fmt.Errorf("demo: status of the reader: %w", err)
	}
	start := time.Now()
	err = d.live(ctx, "diff -r against the original", func(ctx context.Context) []gauge {
		now, err := d.reader.Status(ctx)
		if err != nil {
			return nil
		}
		in := now.Exchange.BytesIn - before.Exchange.BytesIn
		return []gauge{
			{"fetched", int64(in), d.treeBytes, fmt.Sprintf("%s in %s", ui.Bytes(in), ui.Count(now.Exchange.BlocksIn-before.Exchange.BlocksIn, "block"))},
			{label: "rebuilt", text: ui.Bytes(now.Recovery.Bytes) + " in " + ui.Count(now.Recovery.Blocks, "block")},
		}
	}, func() (string, error) {
		var out beginning
		cmd := command(ctx, "diff", "-r", "--no-dereference", d.tree, filepath.Join(d.mount, d.treeName))
		cmd.Stdout = &out
		if err := tool(cmd); err != nil {
			return "", fmt.Errorf("%w%s", err, excerpt(out.String(), "", 3))
		}
		each := float64(len(d.files)) / time.Since(start).Seconds()
		return fmt.Sprintf("no difference in %s, %s a second", ui.Count(uint64(len(d.files)), "file"), thousands(int64(each))), nil
	})
	if err != nil {
		return err
	}
	return d.tellRecovery(ctx)
}

// tellRecovery tells what the reader had to rebuild, and whom it has found.
func (d *demo) tellRecovery(ctx context.Context) error {
	st, err := d.reader.Status(ctx)
	if err != nil {
		return fmt.Errorf("demo: status of the reader: %w", err)
	}
	d.story.Say("")
	if r := st.Recovery; r.Blocks > 0 {
		d.story.Say("%s, %s, could not be had and were rebuilt, each from other shards of its stripe.", ui.Count(r.Blocks, "block"), ui.Bytes(r.Bytes))
	} else {
		d.story.Say("No block had to be rebuilt.")
	}
	d.story.Say("The reader knew one provider. It is connected to %d by now, found through the DHT.", st.Peers)
	d.story.Say("")
	return nil
}

// search searches what has become local by now.
func (d *demo) search(ctx context.Context) error {
	dir := filepath.Join(d.mount, d.treeName)
	var out beginning
	err := d.story.Step(fmt.Sprintf("grep -rF %q, local by now", d.grep), func() (string, error) {
		cmd := command(ctx, "grep", "-rFI", "--max-count=1", d.grep, dir)
		cmd.Stdout = &out
		err := tool(cmd)
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 1 {
			return "nothing found", nil
		}
		return "", err
	})
	if err == nil && out.Len() > 0 {
		d.story.Show(excerpt(out.String(), dir+"/", 4))
	}
	return err
}

// settle has the providers that are left close their channels.
func (d *demo) settle(ctx context.Context) error {
	err := d.story.Step("providers settle with the ledger", func() (string, error) {
		var sum, n uint64
		for _, p := range d.providers {
			if !p.alive() || d.kept[p.id.ID].paid == 0 {
				continue
			}
			if _, err := p.CloseChannels(ctx, d.writerID); err != nil {
				return "", err
			}
			_, settled, err := p.earned(ctx, d.writerID)
			if err != nil {
				return "", err
			}
			sum, n = sum+settled, n+1
		}
		return fmt.Sprintf("%s units for %s, the writer gone", thousands(int64(sum)), ui.Count(n, "provider")), nil
	})
	if err != nil {
		return fmt.Errorf("demo: settle: %w", err)
	}
	return nil
}

// tellFigures settles the providers' channels and shows what went over the network.
func (d *demo) tellFigures(ctx context.Context) error {
	d.act("What it came to")
	if err := d.settle(ctx); err != nil {
		return err
	}
	t := &ui.Table{Heads: []string{"NODE", ">BLOCKS SENT", ">BYTES SENT", ">BLOCKS GOT", ">BYTES GOT", ">PEERS"}}
	for _, n := range d.nodes {
		if !n.alive() {
			continue
		}
		st, err := n.Status(ctx)
		if err != nil {
			return fmt.Errorf("demo: status of %s: %w", n.name, err)
		}
		x := st.Exchange
		t.Add(n.name, thousands(int64(x.BlocksOut)), ui.Bytes(x.BytesOut), thousands(int64(x.BlocksIn)), ui.Bytes(x.BytesIn), fmt.Sprint(st.Peers))
	}
	var text strings.Builder
	if err := t.Print(&text); err != nil {
		return err
	}
	d.story.Show(text.String())
	d.story.Say("")
	d.story.Say("Every byte was checked against its CID on the way.")
	return nil
}
