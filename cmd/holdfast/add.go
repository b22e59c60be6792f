package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

// addFlags are the options of add.
type addFlags struct {
	quiet, asJSON, strict bool
	api.AddOptions
}

func (a *app) addCmd() *cobra.Command {
	var f addFlags
	cmd := &cobra.Command{
		Use:   "add PATH…",
		Short: "import files and trees, print their CIDs",
		Long: `Imports files and directories, recursively and hidden files included, as UnixFS in the unixfs-v1-2025 profile: the CID is
the one that other implementations give. Prints "CID<tab>name" a path. "-" is standard input.

What was added is durable when add returns, stays until unpinned, and is announced to the network.
Pipes, sockets, devices and names that are not UTF-8 are left out with a warning; --strict fails instead.
--preserve keeps permissions and modification times, which changes CIDs. --protect k,m adds parity: content whose blocks are
spread over k+m peers survives the loss of any m of them. It is then also known by the CID of its manifest, which -q prints.`,
		Example: "  holdfast add ~/photos\n  holdfast add --preserve -q ~/bin\n  tar c dir | holdfast add -",
		Args:    args(1, -1, "at least one path is"),
		RunE: a.withNode(func(ctx context.Context, s *session, _ *cobra.Command, paths []string) error {
			added, err := a.add(ctx, s.Client, paths, f)
			if err != nil {
				return err
			}
			if f.asJSON {
				return ui.JSON(a.out, added)
			}
			for _, root := range added {
				switch {
				case f.quiet && root.Manifest != "":
					fmt.Fprintln(a.out, root.Manifest)
				case f.quiet:
					fmt.Fprintln(a.out, root.CID)
				case root.Manifest != "":
					fmt.Fprintf(a.out, "%s\t%s\tmanifest %s\n", root.CID, ui.Printable(root.Name), root.Manifest)
				default:
					fmt.Fprintf(a.out, "%s\t%s\n", root.CID, ui.Printable(root.Name))
				}
			}
			return nil
		}),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print CIDs alone")
	flags.BoolVar(&f.Preserve, "preserve", false, "keep permissions and modification times")
	flags.Var(&f.Protect, "protect", "add parity: any m of each k+m shards may be lost")
	flags.BoolVar(&f.Upload, "upload", false, "have storage providers keep it, with --protect; uploads tells how far that is")
	flags.DurationVar(&f.Lifetime, "lifetime", 30*24*time.Hour, "how long providers keep it")
	flags.BoolVar(&f.strict, "strict", false, "fail on what can't be added, rather than leave it out")
	flags.BoolVar(&f.Pin, "pin", true, "keep the blocks until unpinned")
	jsonFlag(cmd, &f.asJSON)
	return cmd
}

// add streams paths to the node and returns their roots under the names they have here.
func (a *app) add(ctx context.Context, c *api.Client, paths []string, f addFlags) ([]api.Added, error) {
	if slices.Contains(paths, "-") {
		if len(paths) > 1 {
			return nil, &usageError{errors.New("add: \"-\" stands alone, not beside other paths")}
		}
		return a.addStdin(ctx, c, f)
	}
	var total int64
	if ui.IsTerminal(a.err) {
		total = api.Measure(ctx, paths)
	}
	bar := ui.NewBar(a.err, "add", total)
	defer bar.End()
	if lane, err := c.OpenFileLane(ctx); err == nil { // else all bytes go through the stream
		defer lane.Close()
		f.Lane = lane
	}
	added, err := send(ctx, c, someOf(paths), f.AddOptions, func(w io.Writer) error {
		return api.Pack(ctx, w, paths, api.PackOptions{Strict: f.strict, Progress: bar.Add, Lane: f.Lane, Skipped: func(path string, why error) {
			bar.Note(a.err, "holdfast: left out %s: %v", ui.Printable(path), why)
		}})
	})
	if err != nil {
		return nil, err
	}
	if len(added) != len(paths) {
		return nil, fmt.Errorf("add: the node returned %d roots for %d paths", len(added), len(paths))
	}
	for i, path := range paths {
		added[i].Name = nameOf(path)
	}
	return added, nil
}

func (a *app) addStdin(ctx context.Context, c *api.Client, f addFlags) ([]api.Added, error) {
	bar := ui.NewBar(a.err, "add", 0)
	defer bar.End()
	f.Raw = true
	return send(ctx, c, "-", f.AddOptions, func(w io.Writer) error {
		_, err := io.Copy(io.MultiWriter(w, countTo(bar)), a.in)
		return err
	})
}

// send gives what write writes to the node. The first to fail says why.
func send(ctx context.Context, c *api.Client, what string, opts api.AddOptions, write func(io.Writer) error) ([]api.Added, error) {
	in, out := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := write(out)
		written <- err // before anybody sees the end: who fails first says why
		if !errors.Is(err, api.ErrTakesNoMore) {
			out.CloseWithError(err)
		} // else the node's answer is on its way, and an end here would come before it
	}()
	ended := make(chan struct{})
	defer close(ended)
	go func() { // the request does not end while its body is being read
		select {
		case <-ctx.Done():
		case <-c.Lost():
		case <-ended:
		}
		in.CloseWithError(api.ErrTakesNoMore)
	}()
	added, err := c.Add(ctx, in, opts)
	in.CloseWithError(api.ErrTakesNoMore)
	if werr := outcome(written, err); werr != nil && !errors.Is(werr, api.ErrTakesNoMore) && !errors.Is(werr, io.ErrClosedPipe) {
		return nil, werr
	}
	if err != nil {
		return nil, fmt.Errorf("add %s: %w", what, err)
	}
	return added, nil
}

// outcome is what came of writing. Where the node has failed or is not asked any more nobody waits for it: reading
// standard input, or a file of a mount, can't be interrupted, and ends with the process.
func outcome(written <-chan error, failed error) error {
	if failed == nil {
		return <-written
	}
	select {
	case err := <-written:
		return err
	default:
		return nil
	}
}

// someOf names paths in a message.
func someOf(paths []string) string {
	if len(paths) == 1 {
		return paths[0]
	}
	return fmt.Sprintf("%s and %d more", paths[0], len(paths)-1)
}

// nameOf is what a path is called when it stands for a root.
func nameOf(path string) string {
	if name := filepath.Base(path); name != "." && name != ".." {
		return name
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	return filepath.Base(abs)
}

// countTo is a writer that counts on a bar.
func countTo(b *ui.Bar) io.Writer { return barWriter{b} }

type barWriter struct{ bar *ui.Bar }

func (w barWriter) Write(p []byte) (int, error) {
	w.bar.Add(len(p))
	return len(p), nil
}
