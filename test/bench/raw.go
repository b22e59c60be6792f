package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

// rawServerEnv makes the program the far end of the raw stream.
const rawServerEnv = "HOLDFAST_BENCH_RAW_SERVER"

const rawProtocol protocol.ID = "/holdfast/bench/raw/1.0.0"

// rawStream is the reference for what comes over the network: one libp2p
// stream over TCP, TLS and yamux from a process that sends from memory to one
// that throws away.
type rawStream struct {
	host   host.Host
	server peer.ID
	child  *exec.Cmd
	stdin  io.Closer // closed: the server ends
}

// startRaw starts the server, which is this program again, and connects to it.
func startRaw(ctx context.Context) (_ *rawStream, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), rawServerEnv+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &rawStream{child: cmd, stdin: stdin}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("raw stream: %w", err), r.close())
		}
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("address of the server: %w", err)
	}
	info, err := peer.AddrInfoFromString(strings.TrimSpace(line))
	if err != nil {
		return nil, err
	}
	if r.host, err = rawHost(libp2p.NoListenAddrs); err != nil {
		return nil, err
	}
	r.server = info.ID
	return r, r.host.Connect(ctx, *info)
}

// read fetches n bytes over a new stream.
func (r *rawStream) read(ctx context.Context, n int64) error {
	s, err := r.host.NewStream(ctx, r.server, rawProtocol)
	if err != nil {
		return err
	}
	defer s.Reset()
	stop := context.AfterFunc(ctx, func() { s.Reset() })
	defer stop()
	if err := binary.Write(s, binary.BigEndian, n); err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for n > 0 {
		got, err := s.Read(buf)
		n -= int64(got)
		if err != nil && n > 0 {
			return fmt.Errorf("%d bytes before the end: %w", n, err)
		}
	}
	return nil
}

func (r *rawStream) close() error {
	if r.host != nil {
		r.host.Close()
	}
	r.stdin.Close()
	return r.child.Wait()
}

func rawHost(opts ...libp2p.Option) (host.Host, error) {
	return libp2p.New(append(opts,
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.DisableRelay(),
	)...)
}

// serveRaw prints its address and answers until stdin ends.
func serveRaw(stdin io.Reader, stdout io.Writer) error {
	h, err := rawHost(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	if err != nil {
		return err
	}
	defer h.Close()
	payload := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(payload)
	h.SetStreamHandler(rawProtocol, func(s network.Stream) {
		defer s.Close()
		var n int64
		if err := binary.Read(s, binary.BigEndian, &n); err != nil {
			return
		}
		for n > 0 {
			sent, err := s.Write(payload[:min(n, int64(len(payload)))])
			if err != nil {
				return
			}
			n -= int64(sent)
		}
	})
	if _, err := fmt.Fprintf(stdout, "%s/p2p/%s\n", h.Addrs()[0], h.ID()); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, stdin)
	return err
}

// rawRead measures n bytes over the raw stream.
func (b *bench) rawRead(n int64) sample {
	if b.raw == nil {
		raw, err := startRaw(b.ctx)
		b.must(err, "start the raw stream")
		b.raw = raw
		b.Cleanup(func() { raw.close() })
	}
	return timed(float64(n), func() { b.must(b.raw.read(b.ctx, n), "read the raw stream") })
}
