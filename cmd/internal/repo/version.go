package repo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfastfs/holdfast/cmd/internal/hint"
)

// FormatVersion is the format of a repo that this program reads and writes. It changes when a file, a
// prefix or what lies under one changes so that an older program would misread it.
const FormatVersion = 1

// Errors of a directory that can't be opened as a repo.
var (
	ErrNewer   = errors.New("made by a newer holdfast")
	ErrDamaged = errors.New("repo damaged")
	ErrForeign = errors.New("not a holdfast repo")
)

// checkVersion reads the version file. found is false where there is none.
func checkVersion(dir string) (found bool, err error) {
	b, err := os.ReadFile(filepath.Join(dir, versionFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, explain(dir, fmt.Errorf("open repo: %w", err))
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || v < 1 {
		return true, damaged(dir, fmt.Errorf("file %s holds no number", versionFile))
	}
	if v > FormatVersion {
		err := fmt.Errorf("open repo %s: %w: its format is %d, known is up to %d", dir, ErrNewer, v, FormatVersion)
		return true, hint.Add(err, "use a newer holdfast, or another repo with --repo")
	}
	return true, nil
}

// checkForeign refuses to make a repo among somebody else's files.
func checkForeign(dir string) error {
	ours := map[string]bool{configFile: true, identityFile: true, lockFile: true, dbDir: true, blocksDir: true,
		socketFile: true, runningFile: true, logFile: true}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return explain(dir, fmt.Errorf("open repo: %w", err))
	}
	for _, e := range entries {
		if !ours[e.Name()] && !strings.HasPrefix(e.Name(), ".") {
			err := fmt.Errorf("open repo %s: %w: it holds %q and no %s file", dir, ErrForeign, e.Name(), versionFile)
			return hint.Add(err, "name an empty or missing directory with --repo or %s", EnvPath)
		}
	}
	return nil
}

// damaged wraps what was found wrong in dir.
func damaged(dir string, err error) error {
	err = fmt.Errorf("open repo %s: %w: %w", dir, ErrDamaged, err)
	return hint.Add(err, "restore it from a backup, or move it away and start anew with holdfast init")
}
