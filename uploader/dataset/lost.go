package dataset

import (
	"context"
	"path"
	"time"
)

// missing are files that are to be imported and are not found by the names known here, with when that was seen first; at
// most maxFailures. A change of their names is on its way, or was lost.
type missing map[FileID]time.Time

// lost notes that a file is not where it should be.
func (d *Dataset) lost(id FileID) {
	d.trouble.Lock()
	defer d.trouble.Unlock()
	if _, ok := d.missing[id]; !ok && len(d.missing) < maxFailures {
		d.missing[id] = d.now
	}
}

// found ends that.
func (d *Dataset) found(id FileID) {
	d.trouble.Lock()
	defer d.trouble.Unlock()
	delete(d.missing, id)
}

// longLost takes the files that are missing for so long that no news of them can be on their way.
func (d *Dataset) longLost() (ids []FileID) {
	d.trouble.Lock()
	defer d.trouble.Unlock()
	for id, since := range d.missing {
		if d.now.Sub(since) >= 2*d.cfg.Quiet {
			ids = append(ids, id)
			delete(d.missing, id)
		}
	}
	return ids
}

// lookForLost looks at the names of files that are missing for long: those that are gone, or are other files' now, go.
func (d *Dataset) lookForLost(ctx context.Context) error {
	for _, id := range d.longLost() {
		paths, err := d.Paths(ctx, id)
		if err != nil {
			return err
		}
		for _, p := range paths {
			if err := d.touch(ctx, p, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// Paths lists where a file is as far as is known here, at most so many of its names as are changed at once.
func (d *Dataset) Paths(_ context.Context, id FileID) (paths []string, err error) {
	spots, err := d.names(id, linkedAtOnce)
	if err != nil {
		return nil, err
	}
	err = d.view(func(x *tx) error {
		for _, s := range spots {
			dir, found, err := x.pathOf(s.dir)
			if err != nil {
				return err
			}
			if found {
				paths = append(paths, path.Join(dir, s.name))
			}
		}
		return nil
	})
	return paths, err
}
