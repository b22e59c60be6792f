package fs

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"github.com/ipfs/go-cid"
)

// FileID names a staged file for good: over renames, restarts and all its hard links. The zero FileID names none.
type FileID [16]byte

func newFileID() (id FileID) {
	rand.Read(id[:])
	return id
}

// String is the ID in hex digits.
func (id FileID) String() string { return hex.EncodeToString(id[:]) }

// ParseFileID is the inverse of String.
func ParseFileID(s string) (id FileID, err error) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("parse file ID %q: not %d bytes in hex", s, len(id))
	}
	return FileID(raw), nil
}

// Version is what stat says of one content of a file. Two contents have two versions.
type Version struct {
	Bytes      int64
	ModTime    int64 // Unix nanoseconds
	ChangeTime int64 // Unix nanoseconds
}

// File is a staged regular file at one moment. Path is one of its names, below the root, without a leading slash.
type File struct {
	ID      FileID
	Path    string
	Version Version
}

// Versions is told which contents are complete, and remembers them.
type Versions interface {
	// Closed says that a version of a file is complete: its last writer has closed it, or it was truncated, or got
	// another mode or time, while nobody wrote. It is called once a version, and again after an error, a second
	// later. It need not be durable on return: what is lost in a crash is told again at the next start.
	Closed(ctx context.Context, f File) error

	// Opened says that the file's bytes may change as soon as it returns. After an error they do not: the caller
	// gets EIO. Whoever reads the file finds its lease broken before. It may take long, to copy what is needed of the
	// bytes: a caller whose time is up gets EIO, while it goes on until the mount ends.
	Opened(ctx context.Context, f File) error

	// Leaving says that the file's bytes may go as soon as it returns: with its last name, or because it is evicted. After an
	// error they stay: the caller gets EIO. It may take long as Opened may, and what it tells of may not come to pass. While
	// it goes on, and until then, nobody gets a lease. Where keep is not nil nobody has the file open, and nobody will have for
	// writing: the inode can be kept as it is by calling keep, at most once, with a path for it on the same file system.
	Leaving(ctx context.Context, f File, keep func(path string) error) error

	// Recorded tells at the start, for each staged file, where it lies now, and asks for the version that Closed or
	// Changed told of last. A file without a record, or whose record differs, is Closed next.
	Recorded(ctx context.Context, f File) (v Version, known bool, err error)

	// Scanned says that all staged files were told of: the others are gone.
	Scanned(ctx context.Context) error
}

// ChangeKind is what happened to a name.
type ChangeKind int

const (
	Made    ChangeKind = iota + 1 // Path is new: a directory, symbolic link, hard link or special file; files are told of when Closed
	Removed                       // Path is gone; Last tells whether it was the file's last name
	Renamed                       // Path is To now; what To was before is gone
	Swapped                       // Path and To have changed places
	Altered                       // attributes of Path have changed; File, if set, has the same content as before
)

// Change is something that happened to a name in the tree, with all that lies below it.
type Change struct {
	Kind ChangeKind
	Path string
	To   string // Renamed and Swapped
	Dir  bool   // Path was a directory
	Last bool   // Removed: no hard link is left
	File File   // of a regular file that has an ID; its version now, unless it is being written (then zero)

	// Replaced is the file that To was, with its last name gone, if that was a regular file.
	Replaced FileID
}

// Names is told of changes of the tree, in their order.
type Names interface {
	// Changed must be quick. For a file that is not being written, c.File.Version takes the place of the version
	// recorded, if one is: its content is the same.
	Changed(ctx context.Context, c Change)
}

// Status is what became of a file.
type Status struct {
	CID      cid.Cid // undefined while unknown
	State    string  // created, uploading, uploaded or failed
	Progress string  // for people and programs, as it is shown; empty: no such attribute
	Err      string  // why it failed or waits; empty: no such attribute
}

// States answers what extended attributes show. Each waits for nothing but local state. An error that wraps
// ErrNotFound means that there is no answer yet.
type States interface {
	Status(ctx context.Context, id FileID) (Status, error)

	// Directory gives the CID that the directory at path has now; the root is "".
	Directory(ctx context.Context, path string) (cid.Cid, error)

	// Manifest gives the manifest of the root's last synced state.
	Manifest(ctx context.Context) (cid.Cid, error)
}

// Uploads is what an upload directory tells and asks. Its methods are called by many goroutines at once, those about
// one file one after the other, and while requests of the kernel wait. They must not call back into the mount.
type Uploads interface {
	Versions
	Names
	States
}
