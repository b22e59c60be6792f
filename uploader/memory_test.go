package uploader

import (
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// memory is a journal that forgets with the test. It keeps the same bytes as the one on the disk.
type memory struct {
	mu      sync.Mutex // guards the rest
	records map[string][]byte
	commits int
	fail    func() error // of the next commits
}

func newMemory() *memory { return &memory{records: make(map[string][]byte)} }

func (j *memory) clone() *memory { return &memory{records: maps.Clone(j.records)} }

func (j *memory) set(tag byte, id []byte, m proto.Message) {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	j.records[string(tag)+string(id)] = b
}

func (j *memory) load() (c contents, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for k, v := range j.records {
		id := []byte(k[1:])
		switch k[0] {
		case tagFile:
			err = errors.Join(err, take(&c.files, id, v, parseFile))
		case tagGroup:
			err = errors.Join(err, take(&c.groups, id, v, parseGroup))
		case tagChunk:
			err = errors.Join(err, take(&c.chunks, id, v, parseChunk))
		case tagLink:
			err = errors.Join(err, take(&c.links, id, v, parseLink))
		}
	}
	return c, err
}

func (j *memory) commit(r *ready) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !r.durable() {
		return nil
	}
	if j.fail != nil {
		if err := j.fail(); err != nil {
			return err
		}
	}
	j.commits++
	for _, c := range r.chunks {
		j.set(tagChunk, c.ID.Bytes(), c.toPB())
		j.records[string(byte(tagDescriptor))+c.ID.KeyString()] = c.Descriptor
	}
	for _, g := range r.groups {
		j.set(tagGroup, g.ID[:], g.toPB())
	}
	for _, l := range r.links {
		j.set(tagLink, l.ID[:], l.toPB())
	}
	for _, f := range r.files {
		j.set(tagFile, f.ID[:], f.toPB())
	}
	for _, id := range r.goneFiles {
		delete(j.records, string(byte(tagFile))+string(id[:]))
	}
	for _, id := range r.goneLinks {
		delete(j.records, string(byte(tagLink))+string(id[:]))
	}
	for _, id := range r.goneGroups {
		delete(j.records, string(byte(tagGroup))+string(id[:]))
	}
	for _, id := range r.goneChunks {
		delete(j.records, string(byte(tagChunk))+id.KeyString())
		delete(j.records, string(byte(tagDescriptor))+id.KeyString())
	}
	return nil
}

func (j *memory) room() error { return nil }

func (j *memory) descriptor(chunk cid.Cid) ([]byte, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	b, ok := j.records[string(byte(tagDescriptor))+chunk.KeyString()]
	if !ok {
		return nil, fmt.Errorf("no descriptor of %s", chunk)
	}
	return b, nil
}

func (j *memory) paid(_ *badger.Txn, id seal.LinkID, voucher []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	r, err := parseLink(id[:], j.records[string(byte(tagLink))+string(id[:])])
	if err != nil {
		return err
	}
	if r.State != LinkSigned || len(r.Pledge) == 0 {
		return errNoPledge
	}
	r.Paid, r.Voucher = true, voucher
	j.set(tagLink, id[:], r.toPB())
	return nil
}

// count returns how often something was committed.
func (j *memory) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.commits
}
