package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"path/filepath"
	"time"
)

const defaultTempWait = 10 * time.Minute

// UploadConfig describes an upload directory. The zero value of a field means its default; Staging, Uploads and Blocks
// are required.
type UploadConfig struct {
	// Staging is the directory that holds the files. It must exist, be on one file system, which must have user
	// extended attributes, and be used by no other mount.
	Staging string

	// Uploads is told of complete files and asked about them.
	Uploads Uploads

	// Blocks is where the bytes of evicted files come from.
	Blocks Blocks

	// QuotaBytes bounds the staged bytes, as disk blocks: what would go beyond fails with ENOSPC. Writes then go through
	// this process. Default: what the file system has, with passthrough.
	QuotaBytes int64

	// MakeRoom, if set, is called where a write or a file that is brought back finds the quota short, and waits for it. It
	// has some files evicted, if possible as many as take so many bytes, and tells whether any was. It is called by many at
	// once, and ends with ctx.
	MakeRoom func(ctx context.Context, bytes int64) bool

	// Timeout is the time after which a request that still waits, for a block or for fsync, fails. Default 25 s.
	Timeout time.Duration

	// TempNames are patterns, as of path.Match, of names that editors and copying tools use until they rename, or
	// TempEditors or TempRsync. A file that is made under such a name is reported when it has another, or one more; what
	// was there before, a directory or a symbolic link may have any name. Nil means TempEditors and TempRsync; an
	// empty list means none.
	TempNames []string

	// TempWait is how long a closed file may wait for its rename before it counts as complete all the same. At the end
	// of the mount it does. Default 10 minutes.
	TempWait time.Duration

	// AllowOther lets other users than the mounting one in; modes are then checked as on any file system.
	AllowOther bool

	// NoPassthrough has every read and write go through this process.
	NoPassthrough bool

	// FsName is the name of the source in the mount table. Default "holdfast:upload".
	FsName string

	// Logger gets what the mount has to say. Default slog.Default.
	Logger *slog.Logger
}

// withDefaults checks c and fills in what was left out.
func (c UploadConfig) withDefaults() (UploadConfig, error) {
	switch {
	case c.Staging == "":
		return c, errors.New("configure upload directory: no staging directory")
	case c.Uploads == nil || c.Blocks == nil:
		return c, errors.New("configure upload directory: no uploads or no blocks")
	case c.Timeout < 0 || c.TempWait < 0 || c.QuotaBytes < 0:
		return c, errors.New("configure upload directory: a time or the quota is negative")
	}
	for _, p := range c.TempNames {
		if _, err := path.Match(p, ""); err != nil {
			return c, fmt.Errorf("configure upload directory: temporary name %q: %w", p, err)
		}
	}
	staging, err := filepath.Abs(c.Staging)
	if err != nil {
		return c, fmt.Errorf("configure upload directory: %w", err)
	}
	c.Staging = staging
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.TempWait == 0 {
		c.TempWait = defaultTempWait
	}
	if c.FsName == "" {
		c.FsName = "holdfast:upload"
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}
