package provider

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

const childEnv = "HOLDFAST_TEST_PROVIDER"

// TestMain is a provider process if the environment says so.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		fmt.Fprintln(os.Stderr, child(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// child serves one writer over loopback until it is killed.
func child(dir string) error {
	t := &testing.B{} // for helpers that can't fail here
	_, from := testKey(t, "ann")
	key, _ := testKey(t, "provider")
	p, err := Open(Config{DB: openDB(t, dir+"/db"), Dir: dir + "/chunks", Key: key, QuotaBytes: 64 << 20, saveEvery: time.Millisecond})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() { _ = p.Serve(context.Background(), from, c) }()
	}
}

// process is a provider in a process of its own.
type process struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	addr string
}

func (p *process) start() {
	p.t.Helper()
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), childEnv+"="+p.dir)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	must(p.t, err)
	must(p.t, p.cmd.Start())
	p.addr, err = bufio.NewReader(out).ReadString('\n')
	must(p.t, err)
	p.addr = p.addr[:len(p.addr)-1]
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it was killed
}

func (p *process) talk(fn func(c net.Conn) error) error {
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	return fn(c)
}

// TestKill9 kills a provider process after ever more bytes of an upload. The writer goes on with the
// next process; what it was told stays true.
func TestKill9(t *testing.T) {
	p := &process{t: t, dir: scratch(t)}
	n := &node{t: t, clock: newClock()}
	n.clock.unix.Store(time.Now().Unix())
	_, n.id = testKey(t, "provider")
	p.start()
	defer func() { p.kill() }()
	for round := range 6 {
		l := n.newLink("ann", byte(round), makePiece(t, uint64(round), 2<<20, 1<<20))
		var pledge seal.Pledge
		for after := 1; pledge.Signature == nil; after += 9 {
			err := upload(p, l, after, &pledge)
			var r *seal.Refusal
			if errors.As(err, &r) && r.Code == seal.RefusedFailed {
				t.Fatal(err)
			}
		}
		must(t, pledge.Check(l.want()))
		p.kill()
		p.start()
		var again seal.SignatureAnswer
		must(t, p.talk(func(c net.Conn) error { return seal.Ask(c, &seal.SignatureRequest{Link: l.id}, &again) }))
		if !bytes.Equal(again.Pledge.Signature, pledge.Signature) {
			t.Fatal("the link has two pledges")
		}
		var a seal.AuditAnswer
		must(t, p.talk(func(c net.Conn) error {
			return seal.Ask(c, &seal.Audit{Chunk: l.piece.id, Segments: []uint32{uint32(round)}}, &a)
		}))
		must(t, a.Segments[0].Proof.Verify(pledge.SealedRoot, len(l.m.Segments), round, a.Segments[0].Bytes))
	}
}

// upload goes as far as it gets; the provider is killed after so many segments.
func upload(p *process, l *link, after int, pledge *seal.Pledge) error {
	if err := p.talk(func(c net.Conn) error { return seal.Ask(c, l.request(), &seal.StoreAnswer{}) }); err != nil {
		return err
	}
	var a seal.SegmentsAnswer
	err := p.talk(func(c net.Conn) error {
		return seal.Ask(c, &seal.Segments{Link: l.id, Key: l.key, Root: l.m.Root(), Map: l.m}, &a)
	})
	if err != nil {
		return err
	}
	err = p.talk(func(c net.Conn) error {
		sent := 0
		_, err := seal.SendData(c, l.id, a.Missing, func(i int) ([]byte, error) {
			if sent++; sent > after {
				p.kill()
				return nil, io.ErrClosedPipe
			}
			return l.segment(i), nil
		})
		return err
	})
	if errors.Is(err, io.ErrClosedPipe) {
		p.start()
		return nil
	}
	if err != nil {
		return err
	}
	var s seal.SignatureAnswer
	if err := p.talk(func(c net.Conn) error { return seal.Ask(c, &seal.SignatureRequest{Link: l.id}, &s) }); err != nil {
		return err
	}
	*pledge = s.Pledge
	return nil
}
