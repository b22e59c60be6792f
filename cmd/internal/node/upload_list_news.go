package node

import (
	"sync"

	"github.com/holdfastfs/holdfast/uploader"
	"github.com/holdfastfs/holdfast/uploader/dataset"
)

// removedReason is what the uploader says last of a file that it was told to remove.
const removedReason = "removed"

// groupNews remembers what the uploader has told of an upload directory's groups and manifest, as far as they are not with
// providers, so that nobody who asks for a file has to ask the uploader. There are as many as wait to be uploaded. Its
// methods may be called by many.
type groupNews struct {
	mu   sync.Mutex // guards what follows
	open map[uploader.FileID]uploader.FileStatus
}

// begin forgets all: the uploader is about to tell it again.
func (g *groupNews) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(map[uploader.FileID]uploader.FileStatus)
}

// hear notes how a group is doing.
func (g *groupNews) hear(f uploader.FileStatus) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.State == uploader.Uploaded || f.State == uploader.Failed && f.Reason == removedReason {
		delete(g.open, f.ID)
		return
	}
	g.open[f.ID] = f
}

// of is how some groups of a directory are doing together: failed if one has, uploaded where nothing else is known.
func (g *groupNews) of(s *uploadSink, groups []dataset.GroupID) uploader.FileStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	sum := newsSum{FileStatus: uploader.FileStatus{State: uploader.Uploaded}}
	for _, id := range groups {
		if f, ok := g.open[s.file(uploadedGroup, uint64(id))]; ok {
			sum.add(f)
		}
	}
	return sum.FileStatus
}

// all is how all that is not with providers is doing together.
func (g *groupNews) all() uploader.FileStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	sum := newsSum{FileStatus: uploader.FileStatus{State: uploader.Uploaded}}
	for _, f := range g.open {
		sum.add(f)
	}
	return sum.FileStatus
}

// newsSum adds up how files at the uploader are doing. It begins with the state uploaded.
type newsSum struct {
	uploader.FileStatus
	lacks int64 // bytes of the file whose reason it is
}

// add adds a file: a failure counts more than what has not ended, and that more than what has. Of several reasons that is
// told which keeps most back, and of these the least, so that it stays the same from one question to the next.
func (s *newsSum) add(f uploader.FileStatus) {
	s.Bytes, s.Done = s.Bytes+f.Bytes, s.Done+f.Done
	if f.Expiry > 0 && (s.Expiry == 0 || f.Expiry < s.Expiry) {
		s.Expiry = f.Expiry
	}
	if f.State == uploader.Uploaded {
		return
	}
	state := uploader.Uploading
	if f.State == uploader.Failed {
		state = uploader.Failed
	}
	if state == uploader.Uploading && s.State == uploader.Failed {
		return
	}
	lacks := f.Bytes - f.Done
	more := lacks > s.lacks || lacks == s.lacks && f.Reason < s.Reason
	if state == uploader.Failed && s.State != uploader.Failed || s.Reason == "" || f.Reason != "" && more {
		s.Reason, s.lacks = f.Reason, lacks
	}
	s.State = state
}
