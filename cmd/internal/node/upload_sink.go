package node

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"

	"github.com/holdfastfs/holdfast/cmd/internal/repo"
	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader"
	"github.com/holdfastfs/holdfast/uploader/dataset"
)

// restageEvery is how long a group that cannot be read is not looked for in the staging tree again.
const restageEvery = 5 * time.Minute

// Kinds of files that an upload directory has the uploader keep: one a group, and one for the manifest.
const (
	uploadedGroup    = 'g'
	uploadedManifest = 'm'
)

// partsMark keeps the parts of manifests.
const partsMark = dataset.Mark("manifest parts")

// groupKeeper is the uploader as a sink sees it.
type groupKeeper interface {
	Put(ctx context.Context, f uploader.File) error
	Remove(ctx context.Context, id uploader.FileID) error
	Status(ctx context.Context, id uploader.FileID) (uploader.FileStatus, error)
	Retry(ctx context.Context, id uploader.FileID) error
	Links(ctx context.Context, of ...uploader.FileID) ([]uploader.LinkStatus, error)
	Watch(ctx context.Context, fn func(uploader.FileStatus) bool) error
}

var _ groupKeeper = (*uploader.Uploader)(nil)

// uploadSink hands what a dataset makes to the uploader.
type uploadSink struct {
	u      *uploadDir
	keeper groupKeeper
	id     [6]byte // of the upload directory, in its files' IDs
	news   groupNews
	store  ds.Datastore
	key    ds.Key

	mu       sync.Mutex // guards what follows
	state    sinkState
	renewed  map[dataset.GroupID]bool      // that are asked for again when they were looked for in staging
	restaged map[dataset.GroupID]time.Time // when that was asked for, of groups that are not with providers
}

// sinkState is what a sink remembers durably: which parts manifests consist of, in the chunks that they are kept in.
type sinkState struct {
	Latest dataset.ManifestID // whose parts are uploaded, or on their way
	Chunks []partsChunk
}

// partsChunk is a chunk of parts that came with one manifest. It is kept while any of them counts.
type partsChunk struct {
	Manifest dataset.ManifestID
	Parts    []part
}

type part struct {
	CID   cid.Cid
	Bytes int
	Gone  bool
}

var _ dataset.Sink = (*uploadSink)(nil)

func openUploadSink(ctx context.Context, u *uploadDir) (*uploadSink, error) {
	s := &uploadSink{u: u, keeper: u.n.uploader, store: u.n.cfg.Repo.Datastore(repo.PrefixUploadParts), key: ds.NewKey(u.req.Name)}
	s.id = uploadedBy(u.req.Name)
	b, err := s.store.Get(ctx, s.key)
	if errors.Is(err, ds.ErrNotFound) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &s.state)
	}
	if err != nil {
		return nil, fmt.Errorf("read the parts of manifests: %w", err)
	}
	return s, nil
}

// uploadedBy is what the IDs of an upload directory's files at the uploader begin with.
func uploadedBy(name string) (id [6]byte) {
	sum := sha256.Sum256([]byte(name))
	copy(id[:], sum[:])
	return id
}

// file is the ID of one of the directory's files at the uploader.
func (s *uploadSink) file(kind byte, number uint64) (id uploader.FileID) {
	copy(id[:], s.id[:])
	id[6] = kind
	binary.BigEndian.PutUint64(id[8:], number)
	return id
}

// owns says whether a file at the uploader is one of the directory's.
func (s *uploadSink) owns(id uploader.FileID) bool { return [6]byte(id[:6]) == s.id }

// Group implements dataset.Sink.
func (s *uploadSink) Group(ctx context.Context, g dataset.Group) error {
	group := uploader.Group{Parity: s.u.req.Protect.M, Data: s.u.req.Protect.K, Stripes: g.Stripes}
	for _, c := range g.Columns {
		group.Columns = append(group.Columns, uploader.Column{Chunk: c.ID, Descriptor: c.Descriptor})
	}
	return s.keeper.Put(ctx, uploader.File{ID: s.file(uploadedGroup, uint64(g.ID)), Name: fmt.Sprintf("%s, group %d", s.u.req.Name, g.ID),
		Groups: []uploader.Group{group}, Policy: s.u.policy()})
}

// Released implements dataset.Sink.
func (s *uploadSink) Released(ctx context.Context, id dataset.GroupID) error {
	err := s.keeper.Remove(ctx, s.file(uploadedGroup, uint64(id)))
	if errors.Is(err, uploader.ErrNotFound) {
		return nil
	}
	return err
}

// Part implements dataset.Sink.
func (s *uploadSink) Part(ctx context.Context, id dataset.ManifestID, p erasure.Part) error {
	b, err := blocks.NewBlockWithCid(p.Data, p.CID)
	if err != nil {
		return err
	}
	if err := (uploadStore{s.u}).Put(ctx, partsMark, []blocks.Block{b}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.state.Chunks {
		if slices.ContainsFunc(c.Parts, func(q part) bool { return q.CID.Equals(p.CID) }) {
			return nil // told again
		}
	}
	at := slices.IndexFunc(s.state.Chunks, func(c partsChunk) bool {
		return c.Manifest == id && len(c.Parts) < maxChunkParts && bytesOf(c.Parts)+int64(len(p.Data)) <= erasure.MaxChunk
	})
	if at < 0 {
		at = len(s.state.Chunks)
		s.state.Chunks = append(s.state.Chunks, partsChunk{Manifest: id})
	}
	s.state.Chunks[at].Parts = append(s.state.Chunks[at].Parts, part{CID: p.CID, Bytes: len(p.Data)})
	return s.saveLocked(ctx)
}

func bytesOf(parts []part) (n int64) {
	for _, p := range parts {
		n += int64(p.Bytes)
	}
	return n
}

// Manifest implements dataset.Sink.
func (s *uploadSink) Manifest(ctx context.Context, m dataset.Manifest) error {
	n := s.u.n
	if err := n.register.Add(ctx, m.Root, m.CID); err != nil {
		return err
	}
	n.announceRoot(ctx, m.Root)
	n.announceRoot(ctx, m.CID)
	return s.keepManifest(ctx, m.ID)
}

// keepManifest has the parts of a manifest kept.
func (s *uploadSink) keepManifest(ctx context.Context, id dataset.ManifestID) error {
	s.mu.Lock()
	defer s.mu.Unlock() // who asks what of it is placed sees both the new manifest and what is kept for it
	f, err := s.manifestFileLocked()
	if err != nil {
		return err
	}
	// Once it is the latest, it counts as placed when that file is: so the file comes first.
	if err := s.keeper.Put(ctx, f); err != nil {
		return err
	}
	before := s.state.Latest
	s.state.Latest = id
	if err := s.saveLocked(ctx); err != nil {
		s.state.Latest = before
		return err
	}
	return nil
}

// manifestFileLocked is what the uploader is to keep of manifests: every chunk of parts that counts, m+1 times.
func (s *uploadSink) manifestFileLocked() (uploader.File, error) {
	f := uploader.File{ID: s.file(uploadedManifest, 0), Name: s.u.req.Name + ", manifest", Policy: s.u.policy()}
	for _, c := range s.state.Chunks {
		var chunk erasure.Chunk
		for _, p := range c.Parts {
			chunk = append(chunk, erasure.Shard{CID: p.CID, Bytes: p.Bytes})
		}
		columns, err := appendColumn(nil, chunk)
		if err != nil {
			return f, err
		}
		f.Groups = append(f.Groups, uploader.Group{Columns: columns, Copies: s.u.req.Protect.M + 1})
	}
	return f, nil
}

// PartsReleased implements dataset.Sink.
func (s *uploadSink) PartsReleased(ctx context.Context, gone []cid.Cid) error {
	set := cid.NewSet()
	for _, c := range gone {
		set.Add(c)
	}
	s.mu.Lock()
	for i := range s.state.Chunks {
		for j := range s.state.Chunks[i].Parts {
			p := &s.state.Chunks[i].Parts[j]
			p.Gone = p.Gone || set.Has(p.CID)
		}
	}
	s.state.Chunks = slices.DeleteFunc(s.state.Chunks, func(c partsChunk) bool {
		return !slices.ContainsFunc(c.Parts, func(p part) bool { return !p.Gone })
	})
	err := s.saveLocked(ctx)
	f, ferr := s.manifestFileLocked()
	s.mu.Unlock()
	if err := errors.Join(err, ferr); err != nil {
		return err
	}
	if len(f.Groups) == 0 {
		return nil
	}
	return s.keeper.Put(ctx, f)
}

func (s *uploadSink) saveLocked(ctx context.Context) error {
	b, err := json.Marshal(s.state)
	if err != nil {
		return err
	}
	if err := s.store.Put(ctx, s.key, b); err != nil {
		return fmt.Errorf("remember parts of manifests: %w", err)
	}
	return s.store.Sync(ctx, s.key)
}

// watch tells the dataset what is with providers, and what is no more, until ctx ends.
func (s *uploadSink) watch(ctx context.Context) {
	for ctx.Err() == nil {
		s.news.begin()
		var failed error
		err := s.keeper.Watch(ctx, func(f uploader.FileStatus) bool {
			if s.owns(f.ID) {
				s.news.hear(f)
				failed = s.heard(ctx, f)
			}
			return failed == nil // all is told again where it could not be noted
		})
		if err = errors.Join(err, failed); err != nil && ctx.Err() == nil {
			s.u.n.log.Warn("watch uploads, trying on", "path", s.u.dir, "error", err)
			s.u.sleepFor(ctx, workRetry)
		}
	}
}

// heard tells the dataset how a group or the manifest is doing.
func (s *uploadSink) heard(ctx context.Context, f uploader.FileStatus) error {
	if f.State == uploader.Uploaded {
		return s.placed(ctx, f.ID)
	}
	if f.ID[6] != uploadedGroup {
		return nil
	}
	defer s.u.changed()
	id := groupOf(f.ID)
	if err := s.u.set.Unplaced(ctx, id); err != nil {
		return err
	}
	if isExpired(f) {
		return nil
	}
	lost, err := s.unreadable(ctx, f)
	if err != nil || !lost || !s.mayRestage(id) {
		return err
	}
	return s.u.set.Restage(ctx, id) // staging may have it
}

// unreadable says whether a group's shards could not be read, here or from providers, or so few of its chunks are pledged
// that it can't be rebuilt from those.
func (s *uploadSink) unreadable(ctx context.Context, f uploader.FileStatus) (bool, error) {
	if strings.Contains(f.Reason, "more shards are needed") {
		return true, nil
	}
	links, err := s.keeper.Links(ctx, f.ID)
	if err != nil || len(links) == 0 {
		return false, err
	}
	signed := make(map[cid.Cid]bool)
	for _, l := range links {
		signed[l.Chunk] = signed[l.Chunk] || l.State == uploader.LinkSigned && !l.Doubted
	}
	have := 0
	for _, ok := range signed {
		if ok {
			have++
		}
	}
	return have < len(signed)-s.u.req.Protect.M, nil
}

// mayRestage says whether a group has not been asked for a short while ago.
func (s *uploadSink) mayRestage(id dataset.GroupID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.restaged[id]; ok && time.Since(at) < restageEvery {
		return false
	}
	if s.restaged == nil {
		s.restaged = make(map[dataset.GroupID]time.Time)
	}
	s.restaged[id] = time.Now()
	return true
}

// renew has what the staging tree has of groups uploaded anew that providers have not any more, and then asks again for
// what else there is of them, also of expired ones.
func (s *uploadSink) renew(ctx context.Context, ids []dataset.GroupID) error {
	s.mu.Lock()
	for _, id := range ids {
		if s.renewed == nil {
			s.renewed = make(map[dataset.GroupID]bool)
		}
		s.renewed[id] = true
	}
	s.mu.Unlock()
	return s.u.set.Restage(ctx, ids...)
}

// Restaged implements dataset.Sink.
func (s *uploadSink) Restaged(ctx context.Context, id dataset.GroupID, all bool) error {
	s.mu.Lock()
	anew := s.renewed[id]
	s.mu.Unlock()
	f, err := s.keeper.Status(ctx, s.file(uploadedGroup, uint64(id)))
	if err == nil && !all && (anew || !isExpired(f)) {
		err = s.keeper.Retry(ctx, f.ID)
	}
	if err = notThere(err); err == nil {
		s.mu.Lock()
		delete(s.renewed, id)
		s.mu.Unlock()
	}
	return err
}

// groupOf is the group that a file at the uploader is.
func groupOf(id uploader.FileID) dataset.GroupID {
	return dataset.GroupID(binary.BigEndian.Uint64(id[8:]))
}

// placed tells the dataset of a group that is with providers, and of the manifest when it is.
func (s *uploadSink) placed(ctx context.Context, id uploader.FileID) error {
	defer s.u.changed()
	if id[6] == uploadedGroup {
		if err := s.u.set.Placed(ctx, groupOf(id)); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if id[6] == uploadedGroup {
		delete(s.restaged, groupOf(id))
	}
	if s.state.Latest == 0 {
		return nil
	}
	// What Watch told may be of an earlier manifest, so it is asked again. The dataset knows what groups it waits for.
	f, err := s.keeper.Status(ctx, s.file(uploadedManifest, 0))
	if err != nil || f.State != uploader.Uploaded {
		return notThere(err)
	}
	return s.u.set.ManifestPlaced(ctx, s.state.Latest)
}

// safe says whether providers have a group, as far as is known now without asking them.
func (s *uploadSink) safe(ctx context.Context, id dataset.GroupID) (bool, error) {
	f, err := s.keeper.Status(ctx, s.file(uploadedGroup, uint64(id)))
	return err == nil && f.Safe(), notThere(err)
}

func notThere(err error) error {
	if errors.Is(err, uploader.ErrNotFound) {
		return nil
	}
	return err
}
