package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

// toolPatience is how long a tool's output is waited for when the tool has ended.
const toolPatience = 5 * time.Second

// command is an ordinary program. It ends with ctx or with the demo, and all that it started with it.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = toolPatience
	return cmd
}

// tool runs an ordinary program to its end; the error has what it complained of.
func tool(cmd *exec.Cmd) error {
	var complaint beginning
	cmd.Stderr = &complaint
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("demo: %s: %w: %s", filepath.Base(cmd.Path), err, excerpt(complaint.String(), "", 3))
	}
	return nil
}

// beginning keeps the first 64 KiB of what is written to it.
type beginning struct{ bytes.Buffer }

func (b *beginning) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:max(0, min(len(p), 64<<10-b.Len()))])
	return len(p), nil
}

// lineCounter counts the lines that are written to it.
type lineCounter struct{ lines atomic.Int64 }

func (c *lineCounter) Write(p []byte) (int, error) {
	c.lines.Add(int64(bytes.Count(p, []byte{'\n'})))
	return len(p), nil
}

// goSource is where the source of Go is.
func goSource(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "src")
	_, err = os.Stat(dir)
	return dir, err
}

// makeTree makes a tree of some thousand files, for machines without Go.
func makeTree(dir string) (string, error) {
	const folders, files = 40, 50
	for i := range folders {
		folder := filepath.Join(dir, fmt.Sprintf("folder%02d", i))
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return "", err
		}
		for j := range files {
			text := strings.Repeat(fmt.Sprintf("the line of file %d in folder %d\n", j, i), 1+(i*files+j)%400)
			if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("file%02d", j)), []byte(text), 0o644); err != nil {
				return "", err
			}
		}
	}
	return dir, nil
}

// demoFileInfo is a regular file of a tree.
type demoFileInfo struct {
	path  string // below the tree
	bytes int64
}

// listFiles lists the regular files below tree, in the order of their names, and their bytes.
func listFiles(ctx context.Context, tree string) (files []demoFileInfo, size int64, err error) {
	if st, err := os.Stat(tree); err != nil || !st.IsDir() {
		return nil, 0, errors.Join(fmt.Errorf("%s is no directory", tree), err)
	}
	err = filepath.WalkDir(tree, func(path string, e iofs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return errors.Join(err, context.Cause(ctx))
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(tree, path)
		files, size = append(files, demoFileInfo{rel, info.Size()}), size+info.Size()
		return err
	})
	return files, size, err
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
