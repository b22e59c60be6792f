package repo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/holdfastfs/holdfast/cmd/internal/hint"
)

// EnvPath names the environment variable with the directory of the repo.
const EnvPath = "HOLDFAST_PATH"

// Names of the files in a repo.
const (
	versionFile  = "version"
	configFile   = "config.yaml"
	identityFile = "identity.key"
	lockFile     = "lock"
	runningFile  = "running"
	socketFile   = "api.sock"
	logFile      = "log"
	dbDir        = "db"
	blocksDir    = "blocks"
)

// Path decides where the repo is: flag, then HOLDFAST_PATH, then ~/.holdfast. It returns an absolute path.
func Path(flag string) (string, error) {
	dir := flag
	if dir == "" {
		dir = os.Getenv(EnvPath)
	}
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", hint.Add(fmt.Errorf("find the repo: %w", err), "name one with --repo or %s", EnvPath)
		}
		dir = filepath.Join(home, ".holdfast")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the repo: %w", err)
	}
	return abs, nil
}

// SocketPath is the control socket of the repo in dir.
func SocketPath(dir string) string { return filepath.Join(dir, socketFile) }

// LogPath is where processes without a terminal write their log.
func LogPath(dir string) string { return filepath.Join(dir, logFile) }

// explain adds to an error of opening dir what a person can do about it.
func explain(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return hint.Add(err, "free some space on the disk of %s, or use a repo elsewhere with --repo", dir)
	case errors.Is(err, syscall.EROFS):
		return hint.Add(err, "%s is on a read-only file system; use a repo elsewhere with --repo", dir)
	case errors.Is(err, os.ErrPermission):
		return hint.Add(err, "%s must belong to you and be writable; use another repo with --repo or %s", dir, EnvPath)
	case errors.Is(err, syscall.ENOTDIR):
		return hint.Add(err, "a repo is a directory; name another with --repo or %s", EnvPath)
	}
	return err
}

// writeFile writes data so that after a crash the file is there whole or as it was.
func writeFile(path string, data []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
