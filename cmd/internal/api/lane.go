package api

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfastfs/holdfast/cmd/internal/hint"
)

// Large files that are added cross the control socket as open descriptors, not as bytes: a second connection, the
// lane, carries them by SCM_RIGHTS in the order of their tar entries, and the node answers how many bytes of each it
// has read, 8 bytes little endian at a time. Only files of local file systems go this way: a node must not read
// a mount that it serves, nor hang in one that somebody else does.
const (
	paxFile  = "HOLDFAST.file"  // path of the file whose descriptor comes on the lane, in an entry without bytes
	paxBytes = "HOLDFAST.bytes" // its length

	laneProtocol = "holdfast-files"
	headerLane   = "Holdfast-Lane" // the lane's name, for the request that uses it

	// passFrom is the length in bytes from which a descriptor costs less than the bytes.
	passFrom = 4 << 20
	// laneFrame is the length in bytes of one message in either direction.
	laneFrame = 8
	// lanePatience is how long a lane waits to be used.
	lanePatience = 10 * time.Second
)

// localFileSystems are those whose reads end: on this machine's disks or memory.
var localFileSystems = map[int64]bool{
	unix.EXT4_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true, unix.BTRFS_SUPER_MAGIC: true, unix.F2FS_SUPER_MAGIC: true,
	unix.TMPFS_MAGIC: true, 0x2fc12fc1 /* zfs */ : true, 0xca451a4e /* bcachefs */ : true,
}

// passable says whether the node may read f itself.
func passable(f *os.File) bool {
	var fs unix.Statfs_t
	var st unix.Stat_t
	fd := int(f.Fd())
	return unix.Fstatfs(fd, &fs) == nil && localFileSystems[int64(fs.Type)] &&
		unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// lane is the node's end. One request uses it, one goroutine of which calls open and reads.
type lane struct {
	conn *net.UnixConn
	done chan struct{} // closed when it is not used any more
	file *os.File      // that is being read
	once sync.Once
}

// lanes are those that wait to be used, by name.
type lanes struct {
	mu sync.Mutex
	m  map[string]*lane
}

// put keeps l under a new name, which nobody can guess.
func (ls *lanes) put(l *lane) string {
	name := rand.Text()
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.m == nil {
		ls.m = make(map[string]*lane)
	}
	ls.m[name] = l
	return name
}

// take returns a lane to its one user, or nil.
func (ls *lanes) take(name string) *lane {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.m[name]
	delete(ls.m, name)
	return l
}

// lane makes the connection of a request a lane, and ends with it.
func (s *Server) lane(w http.ResponseWriter, r *http.Request) error {
	if r.Header.Get("Upgrade") != laneProtocol {
		return &Error{Code: CodeUsage, Message: "open a file lane: no upgrade to " + laneProtocol}
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fmt.Errorf("open a file lane: %w", err)
	}
	defer conn.Close()
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil // descriptors can't cross anything else
	}
	l := &lane{conn: uc, done: make(chan struct{})}
	name := s.lanes.put(l)
	uc.SetDeadline(time.Time{})
	if _, err := fmt.Fprintf(uc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %s\r\n\r\n", laneProtocol, headerLane, name); err != nil {
		s.lanes.take(name)
		return nil
	}
	unused := time.NewTimer(lanePatience)
	defer unused.Stop()
	for {
		select {
		case <-l.done:
			return nil
		case <-r.Context().Done():
			s.lanes.take(name)
			return nil
		case <-unused.C:
			if s.lanes.take(name) != nil {
				return nil
			}
		}
	}
}

// close ends the lane. It is called by its user alone.
func (l *lane) close() {
	l.once.Do(func() {
		if l.file != nil {
			l.file.Close()
		}
		close(l.done)
	})
}

// content returns what a tar entry of a regular file stands for: the file on the lane, or the entry's own bytes.
func (l *lane) content(ctx context.Context, h *tar.Header, r io.Reader) (io.Reader, int64, error) {
	path, ok := h.PAXRecords[paxFile]
	if !ok {
		return r, h.Size, nil
	}
	if l == nil {
		return nil, 0, &Error{Code: CodeUsage, Message: fmt.Sprintf("add %s: its descriptor has no lane", short(path))}
	}
	size, err := strconv.ParseInt(h.PAXRecords[paxBytes], 10, 64)
	if err != nil || size < 0 {
		return nil, 0, &Error{Code: CodeUsage, Message: fmt.Sprintf("add %s: no length", short(path))}
	}
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
	f, err := receiveFile(ctx, l.conn)
	if err != nil {
		return nil, 0, fmt.Errorf("add %s: receive its descriptor: %w", path, err)
	}
	l.file = f
	if !passable(f) {
		return nil, 0, &Error{Code: CodeUsage, Message: fmt.Sprintf("add %s: the node may not read it itself", short(path))}
	}
	return &laneFile{lane: l, path: path, left: size}, size, nil
}

// receiveFile takes one message with one descriptor.
func receiveFile(ctx context.Context, conn *net.UnixConn) (*os.File, error) {
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var frame [laneFrame]byte
	oob := make([]byte, unix.CmsgSpace(4*4))
	n, oobn, _, _, err := conn.ReadMsgUnix(frame[:], oob)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, m := range messages {
		if got, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, got...)
		}
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	if n != laneFrame || len(fds) != 1 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, errors.New("not one descriptor came")
	}
	return os.NewFile(uintptr(fds[0]), "added file"), nil
}

// laneFile reads the file on a lane from its start, whatever its offset is, and reports on it.
type laneFile struct {
	lane   *lane
	path   string
	off    int64
	left   int64
	report int64 // bytes read and not reported
}

func (f *laneFile) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	n, err := f.lane.file.ReadAt(p[:min(int64(len(p)), f.left)], f.off)
	f.off, f.left, f.report = f.off+int64(n), f.left-int64(n), f.report+int64(n)
	if n > 0 && (f.report >= streamBytes || f.left == 0) {
		var frame [laneFrame]byte
		binary.LittleEndian.PutUint64(frame[:], uint64(f.report))
		f.report = 0
		if _, werr := f.lane.conn.Write(frame[:]); werr != nil {
			return n, fmt.Errorf("add %s: report progress: %w", f.path, werr)
		}
	}
	switch {
	case errors.Is(err, io.EOF) && f.left > 0:
		return n, errShorter(f.path)
	case err != nil && !errors.Is(err, io.EOF):
		return n, fmt.Errorf("add %s: %w", f.path, cause(err))
	}
	return n, nil
}

func errShorter(path string) error {
	return hint.Add(fmt.Errorf("add %s: it became shorter while it was read", path), "add it again when nobody writes to it")
}
