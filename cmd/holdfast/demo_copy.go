package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

const (
	demoProviders = 8
	// demoPrice is asked by providers for a GiB and day; the writer would pay twice as much.
	demoPrice = 100_000
	// mostArguments is how many names cp gets at most; rsync copies what is left.
	mostArguments = 1000
	// demoFile is the name of the random file.
	demoFile = "random"
)

// startNetwork starts the providers and the writer. All meet at the first provider.
func (d *demo) startNetwork(ctx context.Context) error {
	d.act("A network on this machine")
	title := fmt.Sprintf("%d storage providers start", demoProviders)
	err := d.story.Step(title, func() (string, error) {
		for i := range demoProviders {
			n, err := d.spawn(fmt.Sprint("provider ", i+1), "--provider", "--storage-price", fmt.Sprint(demoPrice))
			if err != nil {
				return "", err
			}
			d.providers = append(d.providers, n)
		}
		for _, n := range d.providers {
			if err := n.ready(ctx); err != nil {
				return "", err
			}
			if err := n.meet(ctx, d.providers[0]); err != nil {
				return "", err
			}
		}
		return "a process each, " + d.pids(d.providers), nil
	})
	if err != nil {
		return fmt.Errorf("demo: start the providers: %w", err)
	}
	err = d.story.Step("a writer starts", func() (line string, err error) {
		d.writer, err = d.newcomer(ctx, "writer", d.providers[0])
		return "it knows provider 1 alone", err
	})
	if err != nil {
		return fmt.Errorf("demo: start the writer: %w", err)
	}
	d.writerID = d.writer.id.ID
	d.story.Say("")
	d.story.Say("Each provider asks %s units a GiB and day. (The ledger is a file that they share: bookkeeping, not money.)", thousands(demoPrice))
	return nil
}

// newcomer starts a node that knows one other.
func (d *demo) newcomer(ctx context.Context, name string, knows *demoNode) (*demoNode, error) {
	n, err := d.spawn(name, "--max-storage-price", fmt.Sprint(2*demoPrice))
	if err == nil {
		err = n.ready(ctx)
	}
	if err == nil {
		err = n.meet(ctx, knows)
	}
	return n, err
}

// pids names the processes of nodes.
func (d *demo) pids(nodes []*demoNode) string {
	names := make([]string, 0, len(nodes))
	for _, n := range nodes {
		names = append(names, fmt.Sprint(n.cmd.Process.Pid))
	}
	return "pid " + strings.Join(names, " ")
}

// copyFiles copies the tree and the random file into an upload directory of the writer.
func (d *demo) copyFiles(ctx context.Context) error {
	d.act("Files are copied into an upload directory")
	err := d.story.Step("holdfast mount --upload up", func() (string, error) {
		_, err := d.writer.Mount(ctx, api.MountRequest{Dir: d.up, Upload: &api.UploadRequest{Name: "demo"}})
		return d.up, err
	})
	if err != nil {
		return fmt.Errorf("demo: mount: %w", err)
	}
	if err := os.Mkdir(filepath.Join(d.up, d.treeName), 0o755); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	into := filepath.Join(d.up, d.treeName)
	if _, err := exec.LookPath("rsync"); err != nil {
		title := fmt.Sprintf("cp -a %s (rsync is not installed)", ui.Printable(d.tree))
		if err := d.copy(ctx, title, len(d.files), "cp", "-av", d.tree+"/.", into); err != nil {
			return err
		}
		return d.copyRandom(ctx)
	}
	names, n := d.most()
	if len(names) > 0 {
		title := fmt.Sprintf("cp -a %s/{%s} up/%s", d.treeName, few(names), d.treeName)
		if err := d.copy(ctx, title, n, "cp", append([]string{"-av", "-t", into, "--"}, names...)...); err != nil {
			return err
		}
	}
	title := fmt.Sprintf("rsync -a %s/ up/%s: what is missing", d.treeName, d.treeName)
	if err := d.copy(ctx, title, len(d.files)-n, "rsync", "-a", "--out-format=%n", d.tree+"/", into+"/"); err != nil {
		return err
	}
	return d.copyRandom(ctx)
}

// most names what is at the top of the tree, up to about three quarters of its bytes, and counts the files there.
func (d *demo) most() (names []string, files int) {
	var size int64
	for i, f := range d.files {
		name, _, _ := strings.Cut(f.path, "/")
		name = filepath.Join(d.tree, name)
		if len(names) == 0 || names[len(names)-1] != name {
			if size >= d.treeBytes*3/4 || len(names) == mostArguments {
				return names, i
			}
			names = append(names, name)
		}
		size += f.bytes
	}
	return names, len(d.files)
}

// few is the first and the last of names of files.
func few(names []string) string {
	first, last := filepath.Base(names[0]), filepath.Base(names[len(names)-1])
	if len(names) == 1 {
		return ui.Printable(first)
	}
	return ui.Printable(first) + " … " + ui.Printable(last)
}

// copy runs a tool that copies files and prints a line for each.
func (d *demo) copy(ctx context.Context, title string, files int, name string, args ...string) error {
	var lines lineCounter
	start := time.Now()
	return d.live(ctx, title, func(ctx context.Context) []gauge {
		n := min(lines.lines.Load(), int64(files)) // directories have lines too
		all := []gauge{{"copied", n, int64(files), fmt.Sprintf("%s of %s", thousands(n), ui.Count(uint64(files), "file"))}}
		if st, err := d.writer.Status(ctx); err == nil {
			all = append(all, gauge{label: "behind it", text: ui.Bytes(st.Store.UsedBytes) + " in blocks with their parity"})
		}
		return all
	}, func() (string, error) {
		cmd := command(ctx, name, args...)
		cmd.Stdout = &lines
		if err := tool(cmd); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s, %s a second", ui.Count(uint64(files), "file"), thousands(int64(float64(files)/time.Since(start).Seconds()))), nil
	})
}

// copyRandom makes a file that has no pattern, and copies it too.
func (d *demo) copyRandom(ctx context.Context) error {
	d.file = filepath.Join(d.dir, demoFile)
	size := d.fileMiB << 20
	err := d.story.Step(ui.Bytes(uint64(size))+" of random bytes are made", func() (line string, err error) {
		d.fileSum, err = writeRandom(ctx, d.file, size)
		return "sha256 " + ui.Short(d.fileSum), err
	})
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	start := time.Now()
	return d.story.Step("cp "+demoFile+" up", func() (string, error) {
		err := tool(command(ctx, "cp", d.file, d.up))
		return ui.Rate(uint64(size), time.Since(start)), err
	})
}
