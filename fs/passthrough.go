package fs

import (
	"log/slog"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// bodyBytes is the length from which files have bodies.
const bodyBytes = 4 << 20

// backer registers files with the kernel; *fuse.Server is one.
type backer interface {
	RegisterBackingFd(*fuse.BackingMap) (int32, syscall.Errno)
	UnregisterBackingFd(int32) syscall.Errno
}

// passthrough lets the kernel read complete bodies by itself.
type passthrough struct {
	backer backer // nil: never
	log    *slog.Logger
	on     atomic.Bool
}

// probe finds out whether kernel and rights allow passthrough, and says so once.
func (p *passthrough) probe(b backer, log *slog.Logger) {
	p.backer, p.log = b, log
	fd, err := unix.MemfdCreate("holdfast-probe", unix.MFD_CLOEXEC)
	if err != nil {
		log.Info("passthrough is off", "err", err)
		return
	}
	defer unix.Close(fd)
	id, errno := b.RegisterBackingFd(&fuse.BackingMap{Fd: int32(fd)})
	if errno != 0 {
		log.Info("passthrough is off: complete files are read through the mount's process", "errno", errno.Error())
		return
	}
	b.UnregisterBackingFd(id)
	p.on.Store(true)
	log.Info("passthrough is on: the kernel reads complete files by itself")
}

// register gives the kernel the body of a file and returns its number, 0 where there is none.
func (p *passthrough) register(t *tree, n *node) int32 {
	if n.bytes < bodyBytes || !p.on.Load() {
		return 0
	}
	body, ok := t.cfg.Blocks.Body(n.cid)
	if !ok {
		return 0
	}
	defer body.Close()
	if info, err := body.Stat(); err != nil || uint64(info.Size()) != n.bytes {
		p.log.Warn("body has not the file's length", "path", n.path(), "cid", n.cid, "err", err)
		return 0
	}
	id := p.offer(int(body.Fd()), n.cid.String())
	if id != 0 {
		t.stats.passthrough.Add(1)
	}
	return id
}

// offer gives the kernel a file to read and write by itself and returns its number, 0 if the kernel does not take it.
func (p *passthrough) offer(fd int, name string) int32 {
	if !p.on.Load() {
		return 0
	}
	id, errno := p.backer.RegisterBackingFd(&fuse.BackingMap{Fd: int32(fd)})
	switch {
	case errno == syscall.ENOMEM || errno == syscall.ENOSPC || errno == syscall.EINTR:
		p.log.Debug("the kernel has no room for a file now", "file", name, "errno", errno.Error())
		return 0
	case errno != 0:
		if p.on.CompareAndSwap(true, false) {
			p.log.Warn("passthrough is off from now: the kernel refused a file", "file", name, "errno", errno.Error())
		}
		return 0
	}
	return id
}

func (p *passthrough) unregister(id int32) {
	if errno := p.backer.UnregisterBackingFd(id); errno != 0 {
		p.log.Debug("unregister body", "errno", errno.Error())
	}
}
