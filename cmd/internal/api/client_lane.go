package api

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"golang.org/x/sys/unix"
)

// ErrTakesNoMore says that the node has stopped reading what it is given. Its own answer says why.
var ErrTakesNoMore = errors.New("the node takes no more")

// FileLane hands open files to the node, so that their bytes need not cross the control socket. It is used by one
// goroutine, together with one Add whose options name it.
type FileLane struct {
	name string
	conn *net.UnixConn
	stop func() bool
}

// OpenFileLane makes a lane, which ends with ctx or Close.
func (c *Client) OpenFileLane(ctx context.Context) (*FileLane, error) {
	conn, err := dialSocket(ctx, c.path)
	if err != nil {
		return nil, fmt.Errorf("open a file lane: %w", err)
	}
	l := &FileLane{conn: conn.(*net.UnixConn)}
	l.stop = context.AfterFunc(ctx, func() { conn.Close() })
	if err := l.upgrade(); err != nil {
		l.Close()
		return nil, fmt.Errorf("open a file lane: %w", err)
	}
	return l, nil
}

func (l *FileLane) upgrade() error {
	_, err := fmt.Fprintf(l.conn, "POST /v1/files HTTP/1.1\r\nHost: holdfast\r\nConnection: Upgrade\r\nUpgrade: %s\r\nContent-Length: 0\r\n\r\n", laneProtocol)
	if err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(l.conn), nil) // nothing follows it before a file was passed
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("the node answered %s", resp.Status)
	}
	l.name = resp.Header.Get(headerLane)
	return nil
}

// Close ends the lane.
func (l *FileLane) Close() error {
	l.stop()
	return l.conn.Close()
}

// pass hands over a file of size bytes, not zero, and returns when the node has read them.
func (l *FileLane) pass(f *os.File, size int64, progress func(bytes int)) error {
	var frame [laneFrame]byte
	if _, _, err := l.conn.WriteMsgUnix(frame[:], unix.UnixRights(int(f.Fd())), nil); err != nil {
		return fmt.Errorf("%w: %w", ErrTakesNoMore, err)
	}
	for left := uint64(size); left > 0; {
		if _, err := io.ReadFull(l.conn, frame[:]); err != nil {
			return fmt.Errorf("%w: %w", ErrTakesNoMore, err)
		}
		n := binary.LittleEndian.Uint64(frame[:])
		if n == 0 || n > left {
			return fmt.Errorf("the node claims to have read %d bytes of %d", n, left)
		}
		left -= n
		if progress != nil {
			progress(int(n))
		}
	}
	return nil
}
