package uploader

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// The errors of this package; test with [errors.Is].
var (
	ErrNotFound = errors.New("no such file")
	ErrExists   = errors.New("file exists")
	ErrInvalid  = errors.New("not a valid file")
	ErrFailed   = errors.New("upload failed")
	ErrClosed   = errors.New("uploader has stopped")
)

// FileID names a file; it is the caller's choice.
type FileID [16]byte

// String returns the ID in hexadecimal digits.
func (id FileID) String() string { return hex.EncodeToString(id[:]) }

// GroupID is the hash of what a group says.
type GroupID [32]byte

// File is something to be kept: all chunks of its groups.
type File struct {
	ID     FileID
	Name   string // for people, at most 4,096 bytes
	Groups []Group
	Policy Policy
}

// Policy says how a file is kept. Where files share a chunk, the largest counts.
type Policy struct {
	Redundancy int           // links per chunk; 0 is 1 for groups with parity and 3 for others
	Lifetime   time.Duration // from when the file is added, or renewed; default 30 days
	AutoRenew  bool          // links are renewed before they expire
}

// Group is a run of stripes: columns whose chunks go to different providers. Equal groups are one.
type Group struct {
	Columns []Column
	Parity  int // how many of the columns are parity
	Copies  int // links per chunk, whatever the policy says; 0: as the policy says

	// What follows says how the columns' shards make stripes, so that lost ones can be rebuilt.
	Data    int   // blocks of a full stripe; 0: as many as there are columns of data
	Stripes []int // blocks of each stripe, in order; nil: as many as there are columns of data
}

// Column is a chunk of a group.
type Column struct {
	Chunk      cid.Cid
	Descriptor []byte // of [erasure.Chunk.Encode]; hashes to Chunk
}

// MaxCopies is the most links that a chunk may have for one file.
const MaxCopies = 64

// Limits of files, so that records stay small.
const (
	maxName      = 4096
	maxGroups    = 1 << 20
	maxLifetime  = 100 * 366 * 24 * time.Hour
	minLifetime  = 10 * time.Second
	someLifetime = 30 * 24 * time.Hour
)

const domainGroup = "holdfast/group/1"

// ID returns the group's name. Descriptors don't count, as chunks' IDs are their hashes.
func (g Group) ID() GroupID {
	h := sha256.New()
	b := append(make([]byte, 0, 64), domainGroup...)
	b = binary.BigEndian.AppendUint32(b, uint32(g.Parity))
	b = binary.BigEndian.AppendUint32(b, uint32(g.Copies))
	h.Write(b)
	for _, c := range g.Columns {
		b = binary.BigEndian.AppendUint16(b[:0], uint16(c.Chunk.ByteLen()))
		h.Write(append(b, c.Chunk.Bytes()...))
	}
	return GroupID(h.Sum(nil))
}

// Check fails with ErrInvalid where no file can be kept so.
func (p Policy) Check() error {
	if p.Redundancy < 0 || p.Redundancy > MaxCopies {
		return fmt.Errorf("redundancy of %d is not within 1 and %d: %w", p.Redundancy, MaxCopies, ErrInvalid)
	}
	if l := cmp.Or(p.Lifetime, someLifetime); l < minLifetime || l > maxLifetime {
		return fmt.Errorf("lifetime of %v is not within %v and %v: %w", p.Lifetime, minLifetime, maxLifetime, ErrInvalid)
	}
	return nil
}

// copies returns how many links each chunk of the group has for a file of this policy.
func (p Policy) copies(g *group) int {
	switch {
	case g.copies > 0:
		return g.copies
	case p.Redundancy > 0:
		return p.Redundancy
	case g.parity > 0:
		return 1
	}
	return 3
}

// checked is a file whose fields are within bounds and whose descriptors were read.
type checked struct {
	File
	groups []checkedGroup
}

type checkedGroup struct {
	id    GroupID
	bytes []int64 // by column
	code  code
}

// check reads a file, and fails with ErrInvalid where it can't be kept.
func (f File) check() (checked, error) {
	c := checked{File: f}
	c.Policy.Lifetime = cmp.Or(f.Policy.Lifetime, someLifetime).Truncate(time.Second)
	if len(f.Name) > maxName || len(f.Groups) > maxGroups {
		return c, fmt.Errorf("check file with a name of %d bytes and %d groups: %w", len(f.Name), len(f.Groups), ErrInvalid)
	}
	if err := c.Policy.Check(); err != nil {
		return c, fmt.Errorf("check file: %w", err)
	}
	for i, g := range f.Groups {
		one, err := g.check()
		if err != nil {
			return c, fmt.Errorf("check group %d: %w", i, err)
		}
		c.groups = append(c.groups, one)
	}
	return c, nil
}

func (g Group) check() (checkedGroup, error) {
	if n := len(g.Columns); n < 1 || n > erasure.MaxShards || g.Parity < 0 || g.Parity > n || g.Copies < 0 || g.Copies > MaxCopies {
		return checkedGroup{}, fmt.Errorf("%d columns, %d of parity, %d copies: %w", n, g.Parity, g.Copies, ErrInvalid)
	}
	c := checkedGroup{id: g.ID()}
	var shards []int
	for j, column := range g.Columns {
		chunk, err := column.check()
		if err != nil {
			return c, fmt.Errorf("column %d: %w", j, err)
		}
		c.bytes, shards = append(c.bytes, chunk.Bytes()), append(shards, len(chunk))
	}
	var err error
	c.code, err = codeOf(g, shards)
	return c, err
}

func (c Column) check() (erasure.Chunk, error) {
	if !c.Chunk.Defined() || len(c.Descriptor) > seal.MaxDescriptorBytes {
		return nil, fmt.Errorf("chunk %s with a descriptor of %d bytes: %w", c.Chunk, len(c.Descriptor), ErrInvalid)
	}
	if is, err := c.Chunk.Prefix().Sum(c.Descriptor); err != nil || !is.Equals(c.Chunk) {
		return nil, fmt.Errorf("chunk %s is not its descriptor's: %w", c.Chunk, ErrInvalid)
	}
	chunk, err := erasure.DecodeChunk(c.Descriptor)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if chunk.Bytes() < 1 {
		return nil, fmt.Errorf("chunk %s is empty: %w", c.Chunk, ErrInvalid)
	}
	return chunk, nil
}
