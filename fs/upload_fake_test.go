package fs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

// gate shuts what calls wait at, or opens it.
func (u *fakeUploads) gate(g *chan struct{}, shut bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if shut {
		*g = make(chan struct{})
		return
	}
	close(*g)
	*g = nil
}
