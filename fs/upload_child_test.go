package fs

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// uploadChild is a child that serves an upload directory.
type uploadChild struct {
	spec   childSpec
	blocks *fake
	told   *fakeUploads
	up     *Upload
	leases map[string]*Lease
}

func uploadChildMain(spec childSpec) int {
	syscall.Umask(0o077) // must not show in what is made
	u := spec.Upload
	c := &uploadChild{spec: spec, blocks: newFake(), told: newFakeUploads(u.Records), leases: make(map[string]*Lease)}
	var err error
	var makeRoom func(context.Context, int64) bool
	if u.MakeRoom {
		makeRoom = c.makeRoom
	}
	c.up, err = MountUpload(context.Background(), spec.Dir, UploadConfig{
		Staging: u.Staging, Uploads: c.told, Blocks: c.blocks, QuotaBytes: u.Quota, TempWait: u.TempWait, Timeout: u.Timeout,
		TempNames: u.TempNames, NoPassthrough: u.NoPassthrough, AllowOther: u.AllowOther, MakeRoom: makeRoom,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " / "))
		return 1
	}
	fmt.Println("mounted", fakeCID("root"))
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		words := strings.Fields(in.Text())
		fmt.Println(c.do(words[0], words[1:]))
	}
	return 0
}

func (c *uploadChild) do(verb string, args []string) any {
	switch verb {
	case "told":
		c.told.mu.Lock()
		defer c.told.mu.Unlock()
		return string(must(json.Marshal(told{c.told.closed, c.told.opened, c.told.found, c.told.changes, c.told.scanned,
			c.told.leaving, c.told.keepable})))
	case "clear":
		c.told.mu.Lock()
		defer c.told.mu.Unlock()
		c.told.closed, c.told.opened, c.told.found, c.told.changes = nil, nil, nil, nil
		c.told.leaving, c.told.keepable = nil, 0
	case "build":
		builder{f: c.blocks}.file(must(os.ReadFile(args[0])))
	case "endwaits":
		c.up.EndWaits()
	case "settle":
		return okOr(c.up.Settle(context.Background()))
	case "evict":
		return okOr(c.evict(args[0]))
	case "lease":
		return okOr(c.lease(args[0], must(time.ParseDuration(args[1]))))
	case "check":
		return okOr(c.leases[args[0]].Check())
	case "unlease":
		return okOr(c.leases[args[0]].Close())
	case "broken":
		select {
		case <-c.leases[args[0]].Broken():
			return true
		default:
			return false
		}
	case "strays":
		return fmt.Sprintf("%q", c.strays())
	case "staged":
		used, _ := c.up.Staged()
		return used
	case "refuse", "block":
		c.told.mu.Lock()
		defer c.told.mu.Unlock()
		c.told.refuse, c.told.block = verb == "refuse" && args[0] == "on", verb == "block" && args[0] == "on"
	case "keep":
		c.told.mu.Lock()
		defer c.told.mu.Unlock()
		c.told.keepAs = args[0]
	case "linger", "lingered":
		c.told.gate(&c.told.linger, verb == "linger")
	case "hold", "letgo":
		c.told.gate(&c.told.hold, verb == "hold")
	case "uploaded":
		f := c.lastClosed(args[0])
		c.told.mu.Lock()
		defer c.told.mu.Unlock()
		c.told.status[f.ID] = Status{CID: fakeCID(args[0]), State: "failed", Progress: "3/4", Err: "nobody has room"}
	case "loseall":
		c.blocks.loseAll()
	case "find":
		c.blocks.find()
	case "stats":
		return string(must(json.Marshal(c.up.Stats())))
	case "goroutines":
		return runtime.NumGoroutine()
	case "wait":
		c.up.Wait()
	case "unmount":
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		return okOr(c.up.Unmount(ctx))
	default:
		return "what is " + verb
	}
	return "ok"
}

func okOr(err error) any {
	if err != nil {
		return strings.ReplaceAll(err.Error(), "\n", " / ")
	}
	return "ok"
}

// lastClosed is the file reported last under a path.
func (c *uploadChild) lastClosed(path string) (last File) {
	c.told.mu.Lock()
	defer c.told.mu.Unlock()
	last = c.told.last[path]
	last.Version = c.told.records[last.ID]
	return last
}

// evict uploads a file into the fake's blocks and evicts it.
func (c *uploadChild) evict(path string) error {
	f := c.lastClosed(path) // before its bytes, which may be another version's later
	data, err := os.ReadFile(filepath.Join(c.spec.Upload.Staging, path))
	if err != nil {
		return err
	}
	n := builder{f: c.blocks}.file(data)
	return c.up.Evict(context.Background(), f, n.Cid())
}

// makeRoom evicts the first file that was closed and can be, once somebody waits for it.
func (c *uploadChild) makeRoom(ctx context.Context, _ int64) bool {
	c.told.mu.Lock()
	paths := slices.Sorted(maps.Keys(c.told.last))
	c.told.mu.Unlock()
	return ctx.Err() == nil && slices.ContainsFunc(paths, func(path string) bool { return c.evict(path) == nil })
}

func (c *uploadChild) lease(path string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l, err := c.up.Lease(ctx, c.lastClosed(path).ID, path)
	if err == nil {
		c.leases[path] = l
	}
	return err
}

// told is everything that a child's Uploads heard.
type told struct {
	Closed, Opened, Found []File
	Changes               []Change
	Scanned               int
	Leaving               []File
	Keepable              int // how often of those the inode could have been kept
}

// of gives the paths of the files.
func paths(files []File) (list []string) {
	for _, f := range files {
		list = append(list, f.Path)
	}
	return list
}

// uploaded is a child with an upload directory, as its parent sees it.
type uploaded struct {
	*served
	spec uploadSpec
}

// mountUpload starts a child that serves an upload directory.
func mountUpload(tb testing.TB, spec uploadSpec) *uploaded {
	tb.Helper()
	if spec.Staging == "" {
		spec.Staging = tb.TempDir()
	}
	if spec.Timeout == 0 {
		spec.Timeout = 10 * time.Second
	}
	return &uploaded{served: mountChild(tb, childSpec{Upload: &spec}), spec: spec}
}

// again starts another child over the same staging directory.
func (u *uploaded) again() *uploaded {
	u.tb.Helper()
	return &uploaded{served: mountChild(u.tb, childSpec{Dir: u.dir, Upload: &u.spec}), spec: u.spec}
}

// kill ends the child as kill -9 does.
func (u *uploaded) kill() {
	u.cmd.Process.Kill()
	u.cmd.Wait()
}

func (u *uploaded) told() (t told) {
	u.tb.Helper()
	if err := json.Unmarshal([]byte(u.tell("told")), &t); err != nil {
		u.tb.Fatal(err)
	}
	return t
}

// settledTold is what was told once every closed file was reported.
func (u *uploaded) settledTold() told {
	u.tb.Helper()
	u.ok("settle")
	return u.told()
}

// ok gives a command that must succeed.
func (u *uploaded) ok(words ...string) {
	u.tb.Helper()
	if answer := u.tell(words...); answer != "ok" {
		u.tb.Fatalf("%v: %s", words, answer)
	}
}

// staged is a path in the staging directory.
func (u *uploaded) staged(path string) string { return filepath.Join(u.spec.Staging, path) }

// expectInStep expects that Uploads knows of every file where it is and which version it is.
func (u *uploaded) expectInStep(tb testing.TB) {
	tb.Helper()
	u.ok("settle")
	if strays := u.tell("strays"); strays != "[]" {
		tb.Errorf("out of step: %s", tail(strays, 1000))
	}
}
