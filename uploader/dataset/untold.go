package dataset

import (
	"context"
	"maps"
)

// maxUntold bounds the files that are remembered of changes that could not be noted.
const maxUntold = 1 << 16

// untold is what is known of changes that happened and could not be noted, as the disk was full or failed: whatever they
// were, a scan finds it. It is in memory alone; after a stop the tree is scanned anyway.
type untold struct {
	count   uint64              // of them, ever
	scanned uint64              // of those, before the last scan that was whole
	files   map[FileID]struct{} // that they were about; at most maxUntold. Others have their metadata at the next start.
}

// miss remembers that a change was not noted.
func (d *Dataset) miss(c Change) {
	if c.Kind > Swapped { // that is told again
		return
	}
	d.trouble.Lock()
	defer d.trouble.Unlock()
	u := &d.untold
	u.count++
	if c.File == (FileID{}) || len(u.files) >= maxUntold {
		return
	}
	if u.files == nil {
		u.files = make(map[FileID]struct{})
	}
	u.files[c.File] = struct{}{}
}

// overlooked says whether changes were missed, and nobody has looked for them.
func (d *Dataset) overlooked() bool {
	d.trouble.Lock()
	defer d.trouble.Unlock()
	return d.untold.count != d.untold.scanned
}

// catchMissed looks for all that may have changed unnoticed.
func (d *Dataset) catchMissed(ctx context.Context) error {
	if !d.overlooked() {
		return nil
	}
	d.trouble.Lock()
	count, files := d.untold.count, maps.Clone(d.untold.files)
	d.trouble.Unlock()
	if err := d.workOff(ctx); err != nil {
		return err
	}
	for id := range files {
		err := d.commit(func(x *tx) error {
			if _, found, err := x.file(id); err != nil || !found {
				return err
			}
			return x.flag(d.fileKey(keyClosed, id))
		})
		if err != nil {
			return err
		}
	}
	if err := d.scanDir(ctx, "", rootDir); err != nil {
		return err
	}
	d.trouble.Lock()
	defer d.trouble.Unlock()
	d.untold.scanned = count
	if count == d.untold.count {
		d.untold.files = nil
	}
	return nil
}
