package fs

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"
)

// The tests of real mounts never touch a mount from the process that serves it. The test binary is started again as
// a child, which builds a tree in memory, mounts it, and obeys commands on its standard input.

const childEnv = "HOLDFAST_FS_CHILD"

func TestMain(m *testing.M) {
	if spec := os.Getenv(childEnv); spec != "" {
		os.Exit(childMain(spec))
	}
	os.Exit(m.Run())
}

// childSpec is what a child mounts.
type childSpec struct {
	Tree      string // a name in trees
	Dir       string // where
	Namespace bool   // without the root
	Lazy      bool
	Timeout   time.Duration
	Readahead int64
	Delay     time.Duration // of remote blocks
	Away      bool          // nothing but the root is local
	Lost      bool          // the root does not come
	Program   string        // if set, the child is this program, run by nobody
	NoProc    bool          // the child sees no /proc, and mounts where nobody else sees it

	Upload *uploadSpec // if set, an upload directory is mounted instead of a tree
}

const nobody = 65534

// childMain is the child's life: it prints "mounted", or why not, then answers a line a command.
func childMain(text string) int {
	var spec childSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		fmt.Println("error", err)
		return 2
	}
	if spec.Upload != nil {
		return uploadChildMain(spec)
	}
	c := &child{spec: spec, f: newFake()}
	c.root = trees[spec.Tree](builder{f: c.f})
	if spec.Away {
		c.f.away()
		c.f.near(c.root)
	}
	if spec.Lost {
		c.f.lose(c.root)
	}
	c.f.delay = spec.Delay
	cfg := Config{Blocks: c.f, Root: c.root, Timeout: spec.Timeout, Lazy: spec.Lazy, ReadaheadBytes: spec.Readahead,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Statfs: func() Usage { return Usage{TotalBytes: 1 << 30, FreeBytes: 1 << 29} }}
	if spec.Namespace {
		cfg.Root = cid.Undef
	}
	m, err := Mount(context.Background(), spec.Dir, cfg)
	if err != nil {
		fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " / "))
		return 1
	}
	c.m = m
	fmt.Println("mounted", c.root)
	c.obey()
	return 0
}

// child is the state of a child process.
type child struct {
	spec childSpec
	f    *fake
	root cid.Cid
	m    *Mounted
}

func (c *child) obey() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		words := strings.Fields(in.Text())
		fmt.Println(c.do(words[0], words[1:]))
	}
}

func (c *child) do(verb string, args []string) any {
	switch verb {
	case "away":
		c.f.away()
		c.f.near(c.root)
	case "lose":
		c.f.lose(must(cid.Decode(args[0])))
	case "loseall":
		c.f.loseAll()
		c.f.near(c.root)
	case "find":
		c.f.find()
	case "waiters":
		return c.f.waiters()
	case "ahead":
		return c.f.aheadCount()
	case "most":
		return c.f.mostFetched()
	case "stats":
		return string(must(json.Marshal(c.m.Stats())))
	case "body":
		c.f.addBody(must(cid.Decode(args[0])), args[1])
	case "unlink":
		c.f.dropBody(must(cid.Decode(args[0])))
	case "wait":
		c.m.Wait()
	case "goroutines":
		return runtime.NumGoroutine()
	case "panic":
		c.f.panics.Store(args[0] == "on")
	case "profile":
		f := must(os.Create(args[0]))
		must(0, pprof.StartCPUProfile(f))
	case "profiled":
		pprof.StopCPUProfile()
	case "rss":
		debug.FreeOSMemory()
		return rssAnon()
	case "unmount":
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := c.m.Unmount(ctx); err != nil {
			return err
		}
	case "detach":
		if err := c.m.Detach(context.Background()); err != nil {
			return err
		}
	}
	return "ok"
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func rssAnon() string {
	for line := range strings.Lines(string(must(os.ReadFile("/proc/self/status")))) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func (f *fake) loseAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k := range f.all {
		f.remote[k], f.lost[k] = true, true
	}
}

func (f *fake) addBody(c cid.Cid, path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bodies[c] = path
}

func (f *fake) dropBody(c cid.Cid) {
	f.mu.Lock()
	defer f.mu.Unlock()
	os.Remove(f.bodies[c])
	delete(f.bodies, c)
}

// served is a child that serves a mount, as its parent sees it.
type served struct {
	tb   testing.TB
	dir  string
	root cid.Cid
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	log  *syncBuffer
}

// syncBuffer collects a child's log.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// startChild starts a child that mounts spec and waits for its first line.
func startChild(tb testing.TB, spec childSpec) (*served, string) {
	tb.Helper()
	if spec.Dir == "" {
		spec.Dir = tb.TempDir()
	}
	if spec.Timeout == 0 {
		spec.Timeout = 10 * time.Second
	}
	s := &served{tb: tb, dir: spec.Dir, log: &syncBuffer{}}
	s.cmd = exec.Command(os.Args[0])
	if spec.Program != "" {
		s.cmd = exec.Command(spec.Program)
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	if spec.NoProc {
		s.cmd = exec.Command("unshare", "-m", "sh", "-c", `mount -t tmpfs none /proc && exec "$0"`, os.Args[0])
	}
	s.cmd.Env = append(os.Environ(), childEnv+"="+string(must(json.Marshal(spec))))
	s.cmd.Stderr = s.log
	s.in = must(s.cmd.StdinPipe())
	out := must(s.cmd.StdoutPipe())
	s.out = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.cleanup)
	line, err := s.out.ReadString('\n')
	if err != nil {
		tb.Fatalf("child said nothing: %v\n%s", err, s.log)
	}
	line = strings.TrimSpace(line)
	if root, ok := strings.CutPrefix(line, "mounted "); ok {
		s.root = must(cid.Decode(root))
	}
	return s, line
}

// mountChild starts a child and expects it to mount.
func mountChild(tb testing.TB, spec childSpec) *served {
	tb.Helper()
	s, line := startChild(tb, spec)
	if !s.root.Defined() {
		tb.Fatalf("child: %s\n%s", line, s.log)
	}
	return s
}

// cleanup leaves nothing behind, whatever state the mount is in.
func (s *served) cleanup() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
	abortMount(s.dir)
	for range 3 {
		if m, ok, _ := topMount(s.dir); !ok || !m.ours() {
			break
		}
		unix.Unmount(s.dir, unix.MNT_DETACH)
	}
	if s.tb.Failed() {
		s.tb.Logf("log of the child at %s:\n%s", s.dir, tail(s.log.String(), 4000))
	}
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// abortMount ends the connection of a mount through fusectl, if that is mounted.
func abortMount(dir string) {
	m, ok, err := topMount(dir)
	if err != nil || !ok {
		return
	}
	_, minor, _ := strings.Cut(m.device, ":")
	os.WriteFile("/sys/fs/fuse/connections/"+minor+"/abort", []byte("1"), 0)
}

// tell gives the child a command and returns its answer.
func (s *served) tell(words ...string) string {
	s.tb.Helper()
	fmt.Fprintln(s.in, strings.Join(words, " "))
	line, err := s.out.ReadString('\n')
	if err != nil {
		s.tb.Fatalf("child died at %v: %v\n%s", words, err, s.log)
	}
	return strings.TrimSpace(line)
}

// says waits until the child's log says something; the log comes through a pipe, behind the deeds.
func (s *served) says(what string) {
	s.tb.Helper()
	eventually(s.tb, "the log says "+what, func() bool { return strings.Contains(s.log.String(), what) })
}

func (s *served) stats() (st Stats) {
	s.tb.Helper()
	if err := json.Unmarshal([]byte(s.tell("stats")), &st); err != nil {
		s.tb.Fatal(err)
	}
	return st
}

func (s *served) number(words ...string) int {
	s.tb.Helper()
	n, err := strconv.Atoi(s.tell(words...))
	if err != nil {
		s.tb.Fatal(err)
	}
	return n
}

func (s *served) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// hangGuard is far above what anything here takes.
const hangGuard = time.Minute

// eventually waits for a condition.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.After(hangGuard)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			tb.Fatalf("never happened: %s", what)
		case <-tick.C:
		}
	}
}

// sh runs a shell command and returns its output; $1 and so on are args.
func sh(tb testing.TB, script string, args ...string) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hangGuard)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", script, "sh"}, args...)...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		tb.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// ends waits for a started command's end.
func ends(tb testing.TB, cmd *exec.Cmd) error {
	tb.Helper()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(hangGuard):
		syscall.Kill(cmd.Process.Pid, syscall.SIGKILL)
		tb.Fatalf("%v does not end", cmd.Args)
		return nil
	}
}

// lockThread binds the goroutine to its thread and returns the thread's ID.
func lockThread() int {
	runtime.LockOSThread()
	return syscall.Gettid()
}

func ptr(b *byte) unsafe.Pointer { return unsafe.Pointer(b) }
