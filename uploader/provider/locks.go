package provider

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
)

// writerLocks has a lock for each writer that something is being done for. It keeps apart what changes
// a writer's set of links, its credit or its channel. Lock order: writer, copy, then the mutexes inside
// of table and books.
type writerLocks struct {
	mu   sync.Mutex
	held map[peer.ID]*writerLock
}

type writerLock struct {
	sync.Mutex
	users int // that hold it or wait for it; guarded by writerLocks.mu
}

// lock waits for the writer's lock and returns what gives it back.
func (w *writerLocks) lock(id peer.ID) (unlock func()) {
	w.mu.Lock()
	if w.held == nil {
		w.held = make(map[peer.ID]*writerLock)
	}
	l := w.held[id]
	if l == nil {
		l = &writerLock{}
		w.held[id] = l
	}
	l.users++
	w.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		w.mu.Lock()
		defer w.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(w.held, id)
		}
	}
}
