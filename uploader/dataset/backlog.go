package dataset

import (
	"bytes"
	"maps"
	"slices"
)

// mostWeighed is how many closed files are looked at to tell how many bytes all of them have.
const mostWeighed = 1024

// Backlog is what was closed and is not imported.
type Backlog struct {
	Files int   // at most as many as are remembered; [State] has all
	Bytes int64 // of those; where there are many, they are taken to be like the first

	Unread  int    // of those, files that could not be read when that was tried; counted up to a bound
	Trouble FileID // one of them
	Err     error  // why
}

// Backlog tells what was closed and is not imported. It looks at some of it, no more.
func (d *Dataset) Backlog() (b Backlog, err error) {
	ids, _, err := d.filesOf(keyClosed)
	if err != nil {
		return b, err
	}
	d.trouble.Lock()
	failures := maps.Clone(d.failures)
	d.trouble.Unlock()
	b.Files = len(ids)
	some := ids[:min(len(ids), mostWeighed)]
	err = d.view(func(x *tx) error {
		for _, id := range some {
			v, err := x.get(d.fileKey(keyTold, id))
			if err != nil {
				return err
			}
			told := decoder{rest: v}
			b.Bytes += told.version().Bytes // zero where it was never told
		}
		for _, id := range slices.SortedFunc(maps.Keys(failures), func(a, b FileID) int { return bytes.Compare(a[:], b[:]) }) {
			closed, err := x.get(d.fileKey(keyClosed, id))
			if err != nil {
				return err
			}
			if closed == nil {
				continue // it is gone, or was closed no more
			}
			if b.Unread++; b.Err == nil {
				b.Trouble, b.Err = id, failures[id]
			}
		}
		return nil
	})
	if len(some) > 0 {
		b.Bytes = b.Bytes / int64(len(some)) * int64(len(ids))
	}
	return b, err
}

// Stored is about how many bytes a number of data bytes takes in groups, with parity.
func (d *Dataset) Stored(data int64) int64 { return d.stored(data) }
