package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/holdfastfs/holdfast/fs/unixfs"
	"github.com/ipfs/go-cid"
)

// Blocks is where a mount reads from. Its methods are called by many goroutines at once.
type Blocks interface {
	unixfs.Blocks

	// Body gives the complete, verified bytes of a file in one descriptor of the local file system, for the
	// kernel to read by itself. The caller closes it. It stays readable after the file's eviction.
	Body(file cid.Cid) (*os.File, bool)
}

// Usage is what statfs tells, in bytes.
type Usage struct {
	TotalBytes uint64
	FreeBytes  uint64
}

const (
	defaultTimeout   = 25 * time.Second
	defaultReadahead = 32 << 20
	defaultFileMode  = 0o444
)

// Config describes a mount. The zero value of a field means its default; Blocks alone is required.
type Config struct {
	// Blocks is where content comes from.
	Blocks Blocks

	// Root is the CID to mount. Undefined means the namespace mount: every CID by its name below the mount point.
	Root cid.Cid

	// StandsFor returns the content that a name in the namespace mount stands for, which is most often its own CID. Nil
	// is always that.
	StandsFor func(ctx context.Context, c cid.Cid) (cid.Cid, error)

	// Timeout is the time after which a request that still waits for a block fails. Default 25 s.
	Timeout time.Duration

	// ReadaheadBytes bounds the bytes asked for ahead of one sequential reader. Default 32 MiB; negative means none.
	ReadaheadBytes int64

	// Lazy mounts even where the root's block can't be had now.
	Lazy bool

	// AllowOther lets other users than the mounting one in; modes are then checked as on any file system.
	AllowOther bool

	// NoPassthrough has every read go through this process, also of complete files.
	NoPassthrough bool

	// FsName is the name of the source in the mount table. Default "holdfast:" and the CID.
	FsName string

	// FileMode is the permission of files that carry none. Default 0444. Directories without one are 0555.
	FileMode os.FileMode

	// Statfs tells the room of the store behind the mount; it must not wait for the network. Default: zeros.
	Statfs func() Usage

	// Logger gets what the mount has to say. Default slog.Default.
	Logger *slog.Logger
}

// withDefaults checks c and fills in what was left out.
func (c Config) withDefaults() (Config, error) {
	if c.Blocks == nil {
		return c, errors.New("configure mount: no blocks")
	}
	if c.Timeout < 0 {
		return c, fmt.Errorf("configure mount: timeout %v is negative", c.Timeout)
	}
	if c.FileMode&^os.ModePerm != 0 {
		return c, fmt.Errorf("configure mount: file mode %v is more than permissions", c.FileMode)
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.ReadaheadBytes == 0 {
		c.ReadaheadBytes = defaultReadahead
	}
	if c.FileMode == 0 {
		c.FileMode = defaultFileMode
	}
	if c.FsName == "" {
		c.FsName = "holdfast"
		if c.Root.Defined() {
			c.FsName = "holdfast:" + c.Root.String()
		}
	}
	if c.Statfs == nil {
		c.Statfs = func() Usage { return Usage{} }
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}
