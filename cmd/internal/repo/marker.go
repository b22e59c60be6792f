package repo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// markRunning leaves the marker and says whether one was there already: then the last process did not
// come to its end, and what it wrote without sync may be torn.
func markRunning(dir string) (unclean bool, err error) {
	path := filepath.Join(dir, runningFile)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return true, nil
	}
	if err != nil {
		return false, explain(dir, fmt.Errorf("open repo: %w", err))
	}
	if err := errors.Join(f.Sync(), f.Close(), syncDir(dir)); err != nil {
		return false, explain(dir, fmt.Errorf("open repo %s: %w", dir, err))
	}
	return false, nil
}

// unmarkRunning removes the marker after everything else is closed and durable.
func unmarkRunning(dir string) error {
	if err := os.Remove(filepath.Join(dir, runningFile)); err != nil {
		return err
	}
	return syncDir(dir)
}
