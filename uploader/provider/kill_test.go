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
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

const (
	childEnv = "HOLDFAST_TEST_PROVIDER"
	// stepEnv is the step that a provider process is killed at, counted from 1.
	stepEnv = "HOLDFAST_TEST_PROVIDER_STEP"
)

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
	last, _ := strconv.ParseInt(os.Getenv(stepEnv), 10, 64)
	var steps atomic.Int64
	p, err := Open(Config{DB: openDB(t, dir+"/db"), Dir: dir + "/chunks", Key: key, QuotaBytes: 64 << 20, saveEvery: time.Millisecond,
		step: func(string) error {
			if steps.Add(1) == last {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
			return nil
		}})
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
	step int // that it is killed at, of the next start alone
}

func (p *process) start() {
	p.t.Helper()
	if err := p.tryStart(); err != nil {
		p.t.Fatal(err)
	}
}

// tryStart fails where the process is killed before it listens.
func (p *process) tryStart() error {
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), childEnv+"="+p.dir, stepEnv+"="+strconv.Itoa(p.step))
	p.step = 0
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.addr, err = bufio.NewReader(out).ReadString('\n')
	p.addr = strings.TrimSpace(p.addr)
	return err
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

// TestKilledAtEveryStep kills a provider process at every step of a link, from its start on: between what it commits
// and what it answers, at each segment and each sync. The writer goes on with the next one, which has one copy and
// one pledge.
func TestKilledAtEveryStep(t *testing.T) {
	killed := 0
	for step := 1; ; step += crashStride {
		dead := killedAt(t, step)
		if !dead {
			break
		}
		killed++
	}
	t.Logf("killed at %d steps", killed)
	if killed < 8 {
		t.Errorf("a link has %d steps", killed)
	}
}

// killedAt says whether the provider came to a step.
func killedAt(t *testing.T, step int) (dead bool) {
	t.Helper()
	p := &process{t: t, dir: scratch(t), step: step}
	n := &node{t: t, clock: newClock()}
	n.clock.unix.Store(time.Now().Unix())
	_, n.id = testKey(t, "provider")
	dead = p.tryStart() != nil
	defer func() { p.kill() }()
	if dead {
		_ = p.cmd.Wait() // it was killed
		p.start()
	}
	l := n.newLink("ann", 1, makePiece(t, uint64(step), 300_000))
	var pledge seal.Pledge
	for tries := 0; pledge.Signature == nil; tries++ {
		err := upload(p, l, len(l.m.Segments), &pledge)
		var r *seal.Refusal
		if errors.As(err, &r) || tries > 2 {
			t.Fatalf("killed at step %d: %v", step, err)
		}
		if err != nil { // it is dead
			dead = true
			_ = p.cmd.Wait()
			p.start()
		}
	}
	must(t, pledge.Check(l.want()))
	p.kill()
	p.start()
	var again seal.SignatureAnswer
	must(t, p.talk(func(c net.Conn) error { return seal.Ask(c, &seal.SignatureRequest{Link: l.id}, &again) }))
	if !bytes.Equal(again.Pledge.Signature, pledge.Signature) {
		t.Errorf("killed at step %d: the link has two pledges", step)
	}
	var q seal.QuoteAnswer
	must(t, p.talk(func(c net.Conn) error { return seal.Ask(c, &seal.Quote{Now: time.Now()}, &q) }))
	if used := 64<<20 - int64(q.FreeBytes); used < l.m.Bytes || used > l.m.Bytes+64<<10 {
		t.Errorf("killed at step %d: %d bytes are used of the quota for a chunk of %d", step, used, l.m.Bytes)
	}
	return dead
}
