package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/holdfastfs/holdfast/test/swarm"
	"golang.org/x/sys/unix"
)

// bench is one run of the program: a swarm, what rows share, and the place
// where errors end up. It is the swarm's [swarm.TB].
//
// Rows run one at a time, each in a goroutine of its own, so that Fatalf can
// end the row and no more.
type bench struct {
	ctx      context.Context
	opt      options
	progress io.Writer
	swarm    *swarm.Swarm
	raw      *rawStream
	watch    *watch
	ballast  ballast
	share    fixtures

	mu       sync.Mutex // guards what follows
	err      error      // the first error of the row that runs
	everErr  bool
	cleanups []func()
}

var _ swarm.TB = (*bench)(nil)

// measure runs the chosen rows. Results of rows that failed carry their error,
// which is also in the one returned.
func measure(ctx context.Context, opt options, progress io.Writer) ([]result, error) {
	if err := os.Setenv("TMPDIR", opt.dir); err != nil { // the swarm's scratch directory follows it
		return nil, fmt.Errorf("choose %s: %w", opt.dir, err)
	}
	b := &bench{ctx: ctx, opt: opt, progress: progress, watch: newWatch(opt.profile)}
	b.ballast = newBallast(2*opt.size + 1<<30) // two copies in page caches, and the rest
	defer b.ballast.end()
	defer b.clean()
	b.Cleanup(b.watch.stop)
	if err := b.guarded(func() { b.swarm = swarm.New(b) }); err != nil {
		return nil, err
	}
	var results []result
	var failed []error
	for _, r := range rows() {
		if !opt.only.MatchString(r.name) {
			continue
		}
		res := b.row(r)
		results = append(results, res)
		if err := ctx.Err(); err != nil {
			return results, err
		}
		if res.failed != nil {
			fmt.Fprintf(progress, "%s: %v\n", r.name, res.failed)
			failed = append(failed, fmt.Errorf("%s: %s", r.name, firstLine(res.failed.Error())))
		}
	}
	return results, errors.Join(append(failed, b.watch.failed())...)
}

// row measures one row, all its runs.
func (b *bench) row(r row) result {
	res := result{row: r}
	b.watch.during(r.name)
	failed := b.guarded(func() {
		if r.needs != nil {
			if res.lacks = r.needs(b); res.lacks != nil {
				return
			}
		}
		if r.prepare != nil {
			r.prepare(b)
		}
		runs := b.opt.runs
		if r.goal.kind == withinMiB || r.goal.kind == shareMost {
			runs = 1 // a peak is one figure, and a share always the same
		}
		for i := range runs {
			b.once(&res, i)
		}
		if r.note != nil {
			res.note = r.note(b)
		}
	})
	res.failed = failed
	return res
}

// once measures one pair. A pair of several rounds takes them in the order
// a b b a, which a steady drift of the machine does not touch; odd runs begin
// with the other half.
func (b *bench) once(res *result, run int) {
	r := res.row
	var ours, ref sample
	began := b.watch.cpu()
	for round := range max(r.rounds, 1) {
		order := []struct {
			half func(*bench) sample
			to   *sample
		}{{r.ours, &ours}, {r.ref, &ref}}
		if (run+round)%2 == 1 && !r.oursFirst {
			slices.Reverse(order)
		}
		for _, o := range order {
			if o.half == nil {
				continue
			}
			b.quiet(r.fills)
			s := o.half(b)
			o.to.work += s.work
			o.to.took += s.took
		}
	}
	res.ours = append(res.ours, ours)
	line := fmt.Sprintf("%s: run %d: %s", r.name, run+1, r.goal.format(r.goal.value(ours, ref)))
	if r.ref != nil {
		res.ref = append(res.ref, ref)
		line += fmt.Sprintf(" (%s against %s)", r.unit.median([]sample{ours}), r.unit.median([]sample{ref}))
	}
	fmt.Fprintf(b.progress, "%s, nodes used %.1f s of processors\n", line, (b.watch.cpu() - began).Seconds())
}

// guarded runs f in a goroutine of its own and returns what f gave to Fatalf
// or Errorf. Once the context has ended the mounts are aborted, so that f ends
// even while it waits for one that hangs.
func (b *bench) guarded(f func()) error {
	b.mu.Lock()
	b.err = nil
	b.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-b.ctx.Done():
		b.abortMounts()
		<-done
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// abortMounts fails every call that waits in one of the nodes' mounts.
func (b *bench) abortMounts() {
	if b.swarm == nil {
		return
	}
	mounts, _ := swarm.Mounts(b.swarm.Dir)
	for _, m := range mounts {
		os.WriteFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", m.Minor), []byte("1"), 0o200)
	}
}

// quiet writes out dirty pages and collects what memory a half will fill, so
// that it does not pay for what was before it.
func (b *bench) quiet(fills bool) {
	if err := b.ctx.Err(); err != nil {
		b.Fatalf("%w", err)
	}
	runtime.GC()
	if fills {
		b.ballast.hold()
	}
	unix.Sync()
	b.ballast.release()
}

// dropCaches empties the page, dentry and inode caches.
func (b *bench) dropCaches() {
	unix.Sync()
	b.must(os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o200), "drop caches")
}

func needsRoot(*bench) error {
	if os.Geteuid() != 0 {
		return errors.New("emptying the page cache needs root")
	}
	return nil
}

// syncDir writes the file system of dir to disk.
func (b *bench) syncDir(dir string) {
	d, err := os.Open(dir)
	b.must(err, "sync")
	defer d.Close()
	b.must(unix.Syncfs(int(d.Fd())), "sync "+dir)
}

// command runs cmd to its end, which comes with the bench's at the latest.
func (b *bench) command(cmd *exec.Cmd) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	b.must(cmd.Start(), cmd.String())
	stop := context.AfterFunc(b.ctx, func() { cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		b.Fatalf("%s: %w: %s", cmd, err, bytes.TrimSpace(stderr.Bytes()))
	}
}

// output is command that returns what cmd printed.
func (b *bench) output(cmd *exec.Cmd) string {
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	b.command(cmd)
	return stdout.String()
}

func (b *bench) must(err error, doing string) {
	if err != nil {
		b.Fatalf("%s: %w", doing, err)
	}
}

// timed measures f.
func timed(work float64, f func()) sample {
	start := time.Now()
	f()
	return sample{work: work, took: time.Since(start)}
}

// Helper is part of [swarm.TB].
func (b *bench) Helper() {}

// Logf is part of [swarm.TB].
func (b *bench) Logf(format string, args ...any) { fmt.Fprintf(b.progress, format+"\n", args...) }

// Errorf is part of [swarm.TB]: the row goes on and is reported as failed.
func (b *bench) Errorf(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.everErr = true
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

// Fatalf is part of [swarm.TB]: it ends the row.
func (b *bench) Fatalf(format string, args ...any) {
	b.Errorf(format, args...)
	runtime.Goexit()
}

// Failed is part of [swarm.TB].
func (b *bench) Failed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.everErr
}

// Cleanup is part of [swarm.TB].
func (b *bench) Cleanup(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cleanups = append(b.cleanups, f)
}

// clean runs the cleanups, last first, in a goroutine that Fatalf may end.
func (b *bench) clean() {
	for {
		b.mu.Lock()
		n := len(b.cleanups)
		if n == 0 {
			b.mu.Unlock()
			return
		}
		f := b.cleanups[n-1]
		b.cleanups = b.cleanups[:n-1]
		b.mu.Unlock()
		done := make(chan struct{})
		go func() { defer close(done); f() }()
		<-done
	}
}
