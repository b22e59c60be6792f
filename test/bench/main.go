// Command bench measures holdfast against what the machine can do without it:
// the native file system under the same directory, and one raw libp2p stream
// between two processes. It prints a table of ratios; the two halves of a ratio
// are taken one right after the other, in alternating order, and repeated, so
// that a busy machine shows as spread and not as a wrong figure.
//
//	go run ./test/bench                      # every row, three runs
//	go run ./test/bench -only 'add|cold'     # some rows
//	go run ./test/bench -size 256MiB -runs 1 # a quick look
//
// Rows that begin with an empty page cache need root, because they write to
// /proc/sys/vm/drop_caches. The binary is named by HOLDFAST_BIN, or else is
// bin/holdfast of this source tree. Everything is kept below one scratch
// directory, which is unmounted and removed at the end, also after Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"

	"github.com/dustin/go-humanize"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// options are the command's flags.
type options struct {
	runs    int
	size    int64 // bytes of the big file
	files   int   // files in the tree, each of smallFile bytes
	only    *regexp.Regexp
	list    bool
	json    bool
	dir     string // where the scratch directory is made
	load    string // of the machine, before anything ran
	profile string // directory for CPU profiles of the nodes; empty: none
}

func main() {
	if os.Getenv(rawServerEnv) != "" {
		os.Exit(exitCode(serveRaw(os.Stdin, os.Stdout)))
	}
	if os.Getenv(holderEnv) != "" {
		os.Exit(exitCode(swarm.Hold(os.Args[1:], os.Stdin, os.Stdout)))
	}
	opt, err := parseOptions(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait
	err = run(ctx, opt, os.Stdout, os.Stderr)
	os.Exit(exitCode(err))
}

func exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled):
		return 130
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	return 1
}

func parseOptions(args []string, help io.Writer) (options, error) {
	var opt options
	var size, only string
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(help)
	set.IntVar(&opt.runs, "runs", 3, "how often each row is measured")
	set.StringVar(&size, "size", "1GiB", "bytes of the big file")
	set.IntVar(&opt.files, "files", 10_000, "files in the tree of small files")
	set.StringVar(&only, "only", "", "measure only the rows whose name matches this regular expression")
	set.BoolVar(&opt.list, "list", false, "print the names of the rows and end")
	set.BoolVar(&opt.json, "json", false, "print JSON instead of a table")
	set.StringVar(&opt.dir, "dir", os.TempDir(), "where to make the scratch directory; sources, repositories and references all lie there")
	set.StringVar(&opt.profile, "profile", "", "write a CPU profile of each node, row by row, into this directory (needs perf)")
	if err := set.Parse(args); err != nil {
		return opt, err
	}
	bytes, err := humanize.ParseBytes(size)
	if err != nil || bytes < 1<<20 || bytes > 1<<40 {
		return opt, fmt.Errorf("-size %q: want between 1MiB and 1TiB", size)
	}
	opt.size = int64(bytes)
	if opt.dir, err = filepath.Abs(opt.dir); err != nil {
		return opt, fmt.Errorf("-dir: %w", err)
	}
	if opt.only, err = regexp.Compile(only); err != nil {
		return opt, fmt.Errorf("-only: %w", err)
	}
	if opt.runs < 1 || opt.files < 1 {
		return opt, errors.New("-runs and -files must be at least 1")
	}
	if set.NArg() > 0 {
		return opt, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	return opt, nil
}

// run measures the chosen rows and prints them. An error means that a row
// failed; one that falls short of its goal, or that this machine cannot
// measure, is not an error.
func run(ctx context.Context, opt options, out, progress io.Writer) error {
	if opt.list {
		for _, r := range rows() {
			fmt.Fprintln(out, r.name)
		}
		return nil
	}
	if opt.profile != "" {
		if err := os.MkdirAll(opt.profile, 0o755); err != nil {
			return fmt.Errorf("make the directory of profiles: %w", err)
		}
	}
	opt.load = loadAverage()
	results, err := measure(ctx, opt, progress)
	if len(results) == 0 && err == nil {
		return fmt.Errorf("no row matches %q", opt.only)
	}
	if opt.json {
		return errors.Join(err, printJSON(out, opt, results))
	}
	printTable(out, opt, results)
	return err
}
