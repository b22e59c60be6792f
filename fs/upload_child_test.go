package fs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"
)

// uploadSpec is the upload directory that a child serves.
type uploadSpec struct {
	Staging       string // default: a new directory
	Records       string // a file that keeps the fake's records over restarts
	Quota         int64
	TempWait      time.Duration
	TempNames     []string
	Timeout       time.Duration
	NoPassthrough bool
	AllowOther    bool
	MakeRoom      bool // evicts what was closed
}

// fakeUploads is an Uploads that keeps records in a file, as a journal does, and everything it is told in memory.
type fakeUploads struct {
	// mu guards what follows.
	mu       sync.Mutex
	records  map[FileID]Version
	journal  *os.File
	closed   []File
	last     map[string]File // closed last, by path
	opened   []File
	leaving  []File
	changes  []Change
	found    []File
	scanned  int
	refuse   bool // Closed fails
	block    bool // Opened and Leaving fail
	keepAs   string
	hold     chan struct{} // if set, Opened and Leaving wait until it is closed
	linger   chan struct{} // if set, Leaving waits once it has kept a file
	keepable int
	status   map[FileID]Status
	where    map[string]FileID // where files are, going by what was told
}

type record struct {
	ID      FileID
	Version Version
}

func newFakeUploads(path string) *fakeUploads {
	u := &fakeUploads{last: make(map[string]File), records: make(map[FileID]Version), status: make(map[FileID]Status),
		where: make(map[string]FileID)}
	if path == "" {
		return u
	}
	u.journal = must(os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600))
	lines := json.NewDecoder(u.journal)
	for {
		var r record
		if lines.Decode(&r) != nil {
			return u
		}
		u.records[r.ID] = r.Version
	}
}

func (u *fakeUploads) recordLocked(f File) {
	u.records[f.ID] = f.Version
	if u.journal != nil {
		u.journal.Write(append(must(json.Marshal(record{f.ID, f.Version})), '\n'))
	}
}

func (u *fakeUploads) Closed(_ context.Context, f File) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.refuse {
		return errors.New("the journal is full")
	}
	u.closed, u.last[f.Path] = append(u.closed, f), f
	u.where[f.Path] = f.ID
	u.recordLocked(f)
	return nil
}

// wait takes as long as the test wants.
func (u *fakeUploads) wait(ctx context.Context) error {
	u.mu.Lock()
	hold := u.hold
	u.mu.Unlock()
	if hold == nil {
		return nil
	}
	select {
	case <-hold:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (u *fakeUploads) Opened(ctx context.Context, f File) error {
	if err := u.wait(ctx); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.block {
		return errors.New("no copy can be made")
	}
	u.opened = append(u.opened, f)
	if u.keepAs != "" {
		os.Remove(u.keepAs) // given back
	}
	return nil
}

func (u *fakeUploads) Leaving(ctx context.Context, f File, keep func(string) error) error {
	if err := u.wait(ctx); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.block {
		return errors.New("no copy can be made")
	}
	u.leaving = append(u.leaving, f)
	if keep == nil {
		return nil
	}
	u.keepable++
	if u.keepAs == "" {
		return nil
	}
	err := keep(u.keepAs)
	linger := u.linger
	if linger == nil {
		return err
	}
	u.mu.Unlock()
	defer u.mu.Lock()
	select {
	case <-linger:
	case <-ctx.Done():
	}
	return err
}

func (u *fakeUploads) Recorded(_ context.Context, f File) (Version, bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.found = append(u.found, f)
	u.where[f.Path] = f.ID
	v, ok := u.records[f.ID]
	return v, ok, nil
}

func (u *fakeUploads) Scanned(context.Context) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.scanned++
	return nil
}

func (u *fakeUploads) Changed(_ context.Context, c Change) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.changes = append(u.changes, c)
	u.followLocked(c)
	if _, known := u.records[c.File.ID]; known && c.File.Version != (Version{}) {
		u.recordLocked(c.File)
	}
}

// followLocked keeps up where files are.
func (u *fakeUploads) followLocked(c Change) {
	moved := make(map[string]FileID)
	take := func(from, to string) {
		for path, id := range u.where {
			if rest, ok := strings.CutPrefix(path, from); ok && (rest == "" || rest[0] == '/') {
				moved[to+rest] = id
				delete(u.where, path)
			}
		}
	}
	switch c.Kind {
	case Made:
		if c.File.ID != (FileID{}) {
			u.where[c.Path] = c.File.ID
		}
	case Removed:
		delete(u.where, c.Path)
	case Renamed:
		take(c.Path, c.To)
		for path := range u.where {
			if path == c.To || strings.HasPrefix(path, c.To+"/") {
				delete(u.where, path)
			}
		}
	case Swapped:
		take(c.Path, c.To)
		take(c.To, c.Path)
	}
	maps.Copy(u.where, moved)
}

// strays are the files in staging that are not where, or not what, Uploads was told.
func (c *uploadChild) strays() (list []string) {
	c.told.mu.Lock()
	defer c.told.mu.Unlock()
	there := make(map[string]bool)
	temps := newTempNames(c.spec.Upload.TempNames)
	root := c.spec.Upload.Staging
	must(0, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		var st unix.Statx_t
		var id FileID
		rel := must(filepath.Rel(root, path))
		there[rel] = true
		must(0, unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, statMask, &st))
		must(unix.Getxattr(path, xattrID, id[:]))
		if _, told := c.told.records[id]; !told && temps.match(d.Name()) {
			return nil // it waits for its rename
		}
		if c.told.where[rel] != id {
			list = append(list, fmt.Sprintf("%s is %s, told %s", rel, id, c.told.where[rel]))
		} else if v := versionOf(&st); c.told.records[id] != v {
			list = append(list, fmt.Sprintf("%s is %+v, told %+v", rel, v, c.told.records[id]))
		}
		return nil
	}))
	for path := range c.told.where {
		if !there[path] {
			list = append(list, path+" is not there")
		}
	}
	return list
}

func (u *fakeUploads) Status(_ context.Context, id FileID) (Status, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s, ok := u.status[id]; ok {
		return s, nil
	}
	if _, ok := u.records[id]; !ok {
		return Status{}, ErrNotFound
	}
	return Status{State: "uploading", Progress: "0/1"}, nil
}

func (u *fakeUploads) Directory(_ context.Context, path string) (cid.Cid, error) {
	return fakeCID("directory " + path), nil
}

func (u *fakeUploads) Manifest(context.Context) (cid.Cid, error) { return fakeCID("manifest"), nil }

func fakeCID(text string) cid.Cid {
	return must(cid.V1Builder{Codec: cid.Raw, MhType: 0x12, MhLength: -1}.Sum([]byte(text)))
}

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
	case "linger":
		c.told.mu.Lock()
		defer c.told.mu.Unlock()
		c.told.linger = make(chan struct{})
	case "lingered":
		c.told.mu.Lock()
		defer c.told.mu.Unlock()
		close(c.told.linger)
		c.told.linger = nil
	case "hold":
		c.told.mu.Lock()
		defer c.told.mu.Unlock()
		c.told.hold = make(chan struct{})
	case "letgo":
		c.told.mu.Lock()
		defer c.told.mu.Unlock()
		close(c.told.hold)
		c.told.hold = nil
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
