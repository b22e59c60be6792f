package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxRequest is the most bytes of one read of the kernel.
const maxRequest = 1 << 20

// mountRequest is what the kernel is asked to mount.
type mountRequest struct {
	dir        string
	file       bool // dir is a regular file
	fsName     string
	allowOther bool
	writable   bool
	device     string   // /dev/fuse
	helpers    []string // where fusermount3 may be
}

// helperPaths are the names of the setuid program that mounts for ordinary users.
var helperPaths = []string{"fusermount3", "/bin/fusermount3", "fusermount", "/bin/fusermount"}

// openDevice opens /dev/fuse and mounts it: with mount(2) where that is allowed, otherwise by fusermount3.
func openDevice(ctx context.Context, r mountRequest) (fd int, err error) {
	if _, err := os.Stat(r.device); err != nil {
		return -1, fmt.Errorf("mount %s: no %s: load the kernel's fuse module, or give the container the device", r.dir, r.device)
	}
	if os.Geteuid() == 0 {
		return mountDirect(r)
	}
	return mountHelper(ctx, r)
}

// mountDirect mounts by itself, as root may.
func mountDirect(r mountRequest) (fd int, err error) {
	fd, err = unix.Open(r.device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("mount %s: open %s: %w", r.dir, r.device, err)
	}
	rootMode := syscall.S_IFDIR
	if r.file {
		rootMode = syscall.S_IFREG
	}
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,max_read=%d,default_permissions",
		fd, rootMode, os.Geteuid(), os.Getegid(), maxRequest)
	if r.allowOther {
		options += ",allow_other"
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOATIME)
	if !r.writable {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount(r.fsName, r.dir, "fuse."+subtype, flags, options); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("mount %s: %w", r.dir, err)
	}
	return fd, nil
}

// findHelper finds the first of them that is there.
func findHelper(names []string) (string, error) {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no fusermount3: install the package fuse3, or run as root")
}

// mountHelper has fusermount3 mount. When it is stopped halfway, what it may have mounted already is taken away.
func mountHelper(ctx context.Context, r mountRequest) (fd int, err error) {
	fd, err = runHelper(ctx, r)
	if err != nil && ctx.Err() != nil {
		if left := clearStale(context.WithoutCancel(ctx), r.dir); left != nil && !errors.Is(left, ErrBusy) {
			err = fmt.Errorf("%w; %w", err, left)
		}
	}
	return fd, err
}

// runHelper has fusermount3 mount and send back the open device over a socket.
func runHelper(ctx context.Context, r mountRequest) (fd int, err error) {
	path, err := findHelper(r.helpers)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", r.dir, err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("mount %s: %w", r.dir, err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "fusermount")
	escaped := strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(r.fsName)
	options := fmt.Sprintf("nosuid,nodev,noatime,fsname=%s,subtype=%s,max_read=%d,default_permissions", escaped, subtype, maxRequest)
	if !r.writable {
		options = "ro," + options
	}
	if r.allowOther {
		options += ",allow_other"
	}
	cmd := exec.CommandContext(ctx, path, "-o", options, "--", r.dir)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{theirs}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	theirs.Close()
	if err != nil {
		return -1, fmt.Errorf("mount %s: %s", r.dir, helperError(stderr.String(), err))
	}
	fd, err = receiveFd(pair[0])
	if err != nil {
		return -1, fmt.Errorf("mount %s: receive the device from fusermount3: %w", r.dir, err)
	}
	return fd, nil
}

// helperError is the first line that fusermount3 said, without its name.
func helperError(said string, err error) string {
	line, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	if line == "" {
		return err.Error()
	}
	if name, rest, ok := strings.Cut(line, ": "); ok && strings.Contains(name, "fusermount") {
		line = rest
	}
	return line
}

// receiveFd reads one descriptor from a socket.
func receiveFd(socket int) (int, error) {
	data, control := make([]byte, 8), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, data, control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return -1, err
	}
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	return -1, errors.New("no descriptor was sent")
}

// detach takes away the mount at dir: lazily, whoever still uses it keeps what they have.
func detach(ctx context.Context, dir string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(dir, flags)
	if err == nil || !errors.Is(err, syscall.EPERM) {
		return err
	}
	path, err := findHelper(helperPaths)
	if err != nil {
		return err
	}
	mode := "-u"
	if lazy {
		mode = "-uz"
	}
	cmd := exec.CommandContext(ctx, path, mode, "--", dir)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if strings.Contains(strings.ToLower(string(out)), "busy") {
		return syscall.EBUSY
	}
	if strings.Contains(string(out), "not found in") {
		return syscall.EINVAL
	}
	return errors.New(helperError(string(out), err))
}

// watchInterval is how soon waiting requests hear that the kernel has let go.
const watchInterval = 50 * time.Millisecond

// waits counts the requests that wait for blocks.
type waits struct {
	n    atomic.Int64
	some chan struct{} // told when n leaves 0
}

func (w *waits) begin() {
	if w.n.Add(1) > 1 {
		return
	}
	select {
	case w.some <- struct{}{}:
	default:
	}
}

func (w *waits) end() { w.n.Add(-1) }

// watchDevice calls gone when the kernel has ended the connection behind fd, after an unmount or an abort, and requests
// wait. Where none does, the server's own reading notices. It looks now and then rather than wait at the device: who
// waits there is woken for every request. It closes fd.
func watchDevice(ctx context.Context, fd int, w *waits, gone func()) {
	defer unix.Close(fd)
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		tick.Stop()
		select {
		case <-ctx.Done():
			return
		case <-w.some:
		}
		tick.Reset(watchInterval)
		for w.n.Load() > 0 {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if disconnected(fd) {
				gone()
				return
			}
		}
	}
}

// disconnected tells whether the kernel has ended the connection behind fd.
func disconnected(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents != 0
}
