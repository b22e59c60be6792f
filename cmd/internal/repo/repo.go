package repo

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/libp2p/go-libp2p/core/crypto"
)

// Repo is an open repo. This process owns it until Close.
type Repo struct {
	// Dir is the directory, absolute.
	Dir string
	// Config is what config.yaml says, over the defaults.
	Config Config
	// Key is the node's identity.
	Key crypto.PrivKey
	// DB is the one database; rooms get it with their prefix.
	DB *badger.DB
	// UncleanStop says that the last owner was killed or lost its power.
	UncleanStop bool

	lock  *lock
	close sync.Once
	err   error
}

// Init makes a repo in dir with cfg as its settings; a listen port is chosen unless cfg has one. It
// returns false and changes nothing where there is a repo already.
func Init(dir string, cfg Config) (made bool, err error) {
	if found, err := checkVersion(dir); found || err != nil {
		return false, err
	}
	l, err := makeAndLock(dir)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, l.release()) }()
	return initLocked(dir, cfg)
}

// makeAndLock leaves a directory alone that is somebody else's.
func makeAndLock(dir string) (*lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, explain(dir, fmt.Errorf("make repo: %w", err))
	}
	if found, err := checkVersion(dir); err != nil {
		return nil, err
	} else if !found {
		if err := checkForeign(dir); err != nil {
			return nil, err
		}
	}
	return takeLock(dir)
}

// initLocked does the work of Init; the caller holds the lock of dir.
func initLocked(dir string, cfg Config) (bool, error) {
	if found, err := checkVersion(dir); found || err != nil {
		return false, err
	}
	steps := []func() error{
		func() error { return makeIdentity(dir) },
		func() error { return makeConfig(dir, cfg) },
		func() error { return os.MkdirAll(filepath.Join(dir, blocksDir), 0o700) },
		func() error {
			return writeFile(filepath.Join(dir, versionFile), fmt.Appendln(nil, FormatVersion), 0o600)
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return false, explain(dir, fmt.Errorf("make repo %s: %w", dir, err))
		}
	}
	return true, nil
}

// Open takes the repo in dir for this process and makes it first, with default settings, where there is
// none. The error wraps [ErrInUse], [ErrNewer], [ErrDamaged], [ErrForeign] or what the system said.
func Open(dir string, log *slog.Logger) (*Repo, error) {
	l, err := makeAndLock(dir)
	if err != nil {
		return nil, err
	}
	r, err := openLocked(dir, log)
	if err != nil {
		return nil, errors.Join(err, l.release())
	}
	r.lock = l
	return r, nil
}

func openLocked(dir string, log *slog.Logger) (*Repo, error) {
	if err := enoughSpace(dir); err != nil {
		return nil, err
	}
	if _, err := initLocked(dir, Defaults()); err != nil {
		return nil, err
	}
	cfg, err := ReadConfig(dir)
	if err != nil {
		return nil, err
	}
	key, err := readIdentity(dir)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{dbDir, blocksDir} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, explain(dir, fmt.Errorf("open repo: %w", err))
		}
	}
	unclean, err := markRunning(dir)
	if err != nil {
		return nil, err
	}
	db, err := openDB(filepath.Join(dir, dbDir), log)
	if err != nil {
		if !unclean {
			err = errors.Join(err, unmarkRunning(dir))
		}
		return nil, dbError(dir, err)
	}
	return &Repo{Dir: dir, Config: cfg, Key: key, DB: db, UncleanStop: unclean}, nil
}

// BlocksDir is where the block store keeps packs and bodies.
func (r *Repo) BlocksDir() string { return filepath.Join(r.Dir, blocksDir) }

// Close closes the database and gives the repo back. Who uses DB must have ended. A second call returns
// what the first did.
func (r *Repo) Close() error {
	r.close.Do(func() {
		err := r.DB.Close()
		if err == nil {
			err = unmarkRunning(r.Dir)
		}
		if err != nil {
			err = fmt.Errorf("close repo %s: %w", r.Dir, err)
		}
		r.err = errors.Join(err, r.lock.release())
	})
	return r.err
}
