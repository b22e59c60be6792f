package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

// startNodes starts C, A and B and makes C their meeting point.
func (d *demo) startNodes(ctx context.Context) error {
	d.story.Title("Three nodes on this machine")
	for _, n := range []struct {
		name string
		node **demoNode
		role string
	}{{"C", &d.c, "a meeting point"}, {"A", &d.a, "has content"}, {"B", &d.b, "empty"}} {
		err := d.story.Step(fmt.Sprintf("node %s starts: %s", n.name, n.role), func() (line string, err error) {
			if *n.node, err = d.spawn(n.name); err != nil {
				return "", err
			}
			return "", (*n.node).ready(ctx)
		})
		if err != nil {
			return fmt.Errorf("demo: start node %s: %w", n.name, err)
		}
	}
	return d.story.Step("A and B connect to C, not to each other", func() (string, error) {
		for _, n := range []*demoNode{d.a, d.b} {
			if _, err := n.Connect(ctx, d.c.id.Addresses[:1]); err != nil {
				return "", fmt.Errorf("demo: connect %s to C: %w", n.name, err)
			}
		}
		return "C is " + ui.Short(d.c.id.ID), nil
	})
}

// addContent adds the tree and a random file on A.
func (d *demo) addContent(ctx context.Context) error {
	d.story.Title("A adds content")
	d.treeBytes = api.Measure(ctx, []string{d.tree})
	err := d.add(ctx, "holdfast add "+d.tree, d.tree, d.treeBytes, &d.treeCID)
	if err != nil {
		return err
	}
	d.file = filepath.Join(d.dir, "random")
	size := d.fileMiB << 20
	err = d.story.Step(fmt.Sprintf("%s of random bytes are made", ui.Bytes(uint64(size))), func() (string, error) {
		d.fileSum, err = writeRandom(ctx, d.file, size)
		return "sha256 " + ui.Short(d.fileSum), err
	})
	if err != nil {
		return err
	}
	if err := d.add(ctx, "holdfast add random", d.file, size, &d.fileCID); err != nil {
		return err
	}
	return d.story.Step("A announces both roots, in the DHT with C", func() (string, error) {
		return "", d.until(ctx, func() (bool, error) {
			st, err := d.a.Status(ctx)
			return st.Exchange.Queued == 0 && st.Exchange.Announced >= 2, err
		})
	})
}

func (d *demo) add(ctx context.Context, title, path string, total int64, root *string) error {
	start := time.Now()
	return d.story.StepWithBar(title, total, func(bar *ui.Bar) (string, error) {
		added, err := send(ctx, d.a.Client, path, api.AddOptions{Pin: true}, func(w io.Writer) error {
			return api.Pack(ctx, w, []string{path}, api.PackOptions{Progress: bar.Add, Skipped: func(string, error) {}})
		})
		if err != nil {
			return "", err
		}
		*root = added[0].CID
		return fmt.Sprintf("%s at %s  %s", ui.Bytes(uint64(total)), ui.Rate(uint64(total), time.Since(start)), ui.Short(*root)), nil
	})
}

// writeRandom writes size random bytes and returns their sha256.
func writeRandom(ctx context.Context, path string, size int64) (string, error) {
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for left := size; left > 0 && err == nil; left -= 1 << 20 {
		if err = ctx.Err(); err == nil {
			_, err = io.CopyN(io.MultiWriter(f, h), rand.Reader, min(left, 1<<20))
		}
	}
	return hex.EncodeToString(h.Sum(nil)), errors.Join(err, f.Close())
}

// mountContent mounts on B what B knows nothing of but the CIDs.
func (d *demo) mountContent(ctx context.Context) error {
	d.story.Title("B mounts it by CID")
	mount := func(title string, req api.MountRequest) error {
		return d.story.Step(title, func() (string, error) {
			_, err := d.b.Mount(ctx, req)
			if err != nil {
				return "", fmt.Errorf("demo: mount: %w", err)
			}
			return "on " + req.Dir, nil
		})
	}
	if err := mount("holdfast mount "+ui.Short(d.treeCID), api.MountRequest{CID: d.treeCID, Dir: d.treeMount}); err != nil {
		return err
	}
	if err := mount("holdfast mount (any CID by name)", api.MountRequest{Dir: d.all}); err != nil {
		return err
	}
	peers, err := d.b.Peers(ctx)
	if err != nil {
		return err
	}
	for _, p := range peers {
		if p.ID == d.a.id.ID && p.Connected {
			d.story.Say("B has found A, %s, through C's DHT", ui.Short(p.ID))
		}
	}
	return nil
}

// readContent uses the mounts with ordinary tools.
func (d *demo) readContent(ctx context.Context) error {
	d.story.Title("Ordinary tools read it, from A over the network")
	listing, err := d.tool(ctx, "ls", "ls", d.treeMount)
	if err != nil {
		return err
	}
	names := strings.Fields(listing)
	d.story.Show(strings.Join(names[:min(len(names), 12)], "  ") + "  … " + ui.Count(uint64(len(names)), "name"))
	mounted := filepath.Join(d.all, d.fileCID)
	start := time.Now()
	err = d.story.Step("first byte of the random file", func() (string, error) {
		return "", firstByte(mounted)
	})
	if err != nil {
		return err
	}
	if err := d.compareSums(ctx, mounted, start); err != nil {
		return err
	}
	found, err := d.tool(ctx, fmt.Sprintf("grep -rF %q", d.grep), "grep", "-rFI", "--max-count=1", d.grep, d.treeMount)
	if err != nil {
		return err
	}
	if found != "" {
		d.story.Show(excerpt(found, d.treeMount+"/", 4))
	}
	_, err = d.tool(ctx, "diff -r: the whole tree is the same", "diff", "-r", d.tree, d.treeMount)
	return err
}

func (d *demo) compareSums(ctx context.Context, mounted string, start time.Time) error {
	return d.story.Step("sha256sum of the random file", func() (string, error) {
		out, err := exec.CommandContext(ctx, "sha256sum", mounted).Output()
		if err != nil {
			return "", fmt.Errorf("demo: sha256sum: %w", err)
		}
		if sum, _, _ := strings.Cut(string(out), " "); sum != d.fileSum {
			return "", fmt.Errorf("demo: the mount shows other bytes: sha256 %s, not %s", sum, d.fileSum)
		}
		return "equal, at " + ui.Rate(uint64(d.fileMiB)<<20, time.Since(start)), nil
	})
}

// firstByte reads one byte of a mount that another process serves.
func firstByte(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer f.Close()
	if _, err := io.ReadFull(f, make([]byte, 1)); err != nil {
		return fmt.Errorf("demo: read %s: %w", path, err)
	}
	return nil
}

// tool runs an ordinary program as a step and returns what it printed.
func (d *demo) tool(ctx context.Context, title, name string, args ...string) (string, error) {
	var out []byte
	err := d.story.Step(title, func() (line string, err error) {
		var complaint strings.Builder
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Stderr = &complaint
		out, err = cmd.Output()
		if name == "grep" && cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 1 {
			return "nothing found", nil
		}
		if err != nil {
			return "", fmt.Errorf("demo: %s: %w: %s", name, err, excerpt(string(out)+complaint.String(), "", 3))
		}
		return "", nil
	})
	return string(out), err
}

// excerpt is the first lines of text, without a prefix of theirs and not too wide.
func excerpt(text, prefix string, lines int) string {
	var out []string
	all := strings.Split(strings.TrimSpace(text), "\n")
	for _, line := range all[:min(lines, len(all))] {
		line = strings.TrimPrefix(line, prefix)
		if r := []rune(line); len(r) > 100 {
			line = string(r[:99]) + "…"
		}
		out = append(out, ui.Printable(line))
	}
	if len(all) > lines {
		out = append(out, fmt.Sprintf("… %d lines", len(all)))
	}
	return strings.Join(out, "\n")
}

// showTraffic shows what each node has sent and received.
func (d *demo) showTraffic(ctx context.Context) error {
	d.story.Title("What went over the network")
	t := &ui.Table{Heads: []string{"NODE", ">BLOCKS IN", ">BYTES IN", ">BLOCKS OUT", ">BYTES OUT", ">PEERS", ">STORED"}}
	for _, n := range d.nodes {
		st, err := n.Status(ctx)
		if err != nil {
			return fmt.Errorf("demo: status of %s: %w", n.name, err)
		}
		x := st.Exchange
		t.Add(n.name, fmt.Sprint(x.BlocksIn), ui.Bytes(x.BytesIn), fmt.Sprint(x.BlocksOut), ui.Bytes(x.BytesOut),
			fmt.Sprint(st.Peers), ui.Bytes(st.Store.UsedBytes))
	}
	var text strings.Builder
	if err := t.Print(&text); err != nil {
		return err
	}
	d.story.Show(text.String())
	return nil
}

// killA kills A and reads again.
func (d *demo) killA(ctx context.Context) error {
	d.story.Title("A is killed, and what B has read stays")
	if err := d.story.Step("kill -9 A", func() (string, error) { return "", d.a.kill() }); err != nil {
		return err
	}
	err := d.story.Step("B mounts the tree anew, from its own store", func() (string, error) {
		_, err := d.b.Mount(ctx, api.MountRequest{CID: d.treeCID, Dir: d.two})
		return "on " + d.two, err
	})
	if err != nil {
		return fmt.Errorf("demo: mount: %w", err)
	}
	if _, err := d.tool(ctx, "diff -r: the whole tree is the same", "diff", "-r", d.tree, d.two); err != nil {
		return err
	}
	if err := d.compareSums(ctx, filepath.Join(d.all, d.fileCID), time.Now()); err != nil {
		return err
	}
	d.story.Say("")
	d.story.Say("Every byte was checked against its CID on the way.")
	return nil
}

// until asks cond again and again until it holds.
func (d *demo) until(ctx context.Context, cond func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, errors.New("demo: gave up waiting"))
	defer cancel()
	for {
		if ok, err := cond(); ok || err != nil {
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}
