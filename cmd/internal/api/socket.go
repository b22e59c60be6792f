package api

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// maxSocketPath is the longest path that a unix socket's address holds.
const maxSocketPath = 107

// Listen makes the control socket at path with mode 0600. What lies there is a dead owner's and goes: the
// caller owns the repo. Closing the listener removes the socket.
func Listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("listen for commands: %w", err)
	}
	short, done, err := shortPath(path)
	if err != nil {
		return nil, fmt.Errorf("listen for commands: %w", err)
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short + ".new", Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for commands: %w", err)
	}
	l.SetUnlinkOnClose(false)
	tmp := path + ".new" // gets its mode before anybody can find it
	if err = os.Chmod(tmp, 0o600); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		l.Close()
		os.Remove(tmp)
		return nil, fmt.Errorf("listen for commands: %w", err)
	}
	return &removing{Listener: l, path: path}, nil
}

// removing is a listener whose socket goes with it.
type removing struct {
	net.Listener
	path string
}

func (r *removing) Close() error {
	os.Remove(r.path)
	return r.Listener.Close()
}

// dialSocket connects to the socket at path.
func dialSocket(ctx context.Context, path string) (net.Conn, error) {
	short, done, err := shortPath(path)
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	return d.DialContext(ctx, "unix", short)
}

// shortPath returns a name for path that fits a socket's address until done is called: long ones go
// through an open descriptor of their directory.
func shortPath(path string) (short string, done func(), err error) {
	if len(path)+len(".new") <= maxSocketPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	short = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	return short, func() { dir.Close() }, nil
}
