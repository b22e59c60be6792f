package test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// child is the command that runs the test binary as one of children.
func child(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), childEnv+"="+name)
	return cmd
}

// runChild runs a child to its end and fails the test when it fails.
func runChild(t *testing.T, s *swarm.Swarm, name string, args ...string) string {
	t.Helper()
	p := s.Spawn(child(t, name, args...))
	if code := p.Wait(swarm.Patience); code != 0 {
		t.Fatalf("%s %q ended with code %d: %s", name, args, code, p.Err())
	}
	return p.Out()
}

// mmapChild maps a file shared and private, reads the pages of both in random
// order, compares them with the reference file, and then all of it in order.
// args: file, reference.
func mmapChild(args []string) error {
	want, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	for _, flags := range []int{unix.MAP_SHARED, unix.MAP_PRIVATE} {
		got, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ, flags)
		if err != nil {
			return fmt.Errorf("map: %w", err)
		}
		const page = 4096
		pages := rand.Perm((len(want) + page - 1) / page)
		for _, i := range pages[:min(len(pages), 500)] {
			end := min((i+1)*page, len(want))
			if !bytes.Equal(got[i*page:end], want[i*page:end]) {
				return fmt.Errorf("page %d differs", i)
			}
		}
		if !bytes.Equal(got, want) {
			return errors.New("the mapping differs from the file")
		}
		if err := unix.Munmap(got); err != nil {
			return fmt.Errorf("unmap: %w", err)
		}
	}
	return nil
}

// readersChild opens a file once for each of many readers, which read at random
// offsets at the same time and compare with the reference file.
// args: file, reference, readers, rounds, seed.
func readersChild(args []string) error {
	ref, err := os.Open(args[1])
	if err != nil {
		return err
	}
	defer ref.Close()
	info, err := ref.Stat()
	if err != nil {
		return err
	}
	readers, _ := strconv.Atoi(args[2])
	rounds, _ := strconv.Atoi(args[3])
	seed, _ := strconv.ParseUint(args[4], 10, 64)
	errs := make([]error, readers)
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			errs[i] = readRandomly(args[0], ref, info.Size(), rounds, rand.New(rand.NewPCG(seed, uint64(i))))
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func readRandomly(path string, ref *os.File, bytesOfFile int64, rounds int, rnd *rand.Rand) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for range rounds {
		off := rnd.Int64N(bytesOfFile)
		n := min(1+rnd.Int64N(64<<10), bytesOfFile-off)
		got, want := make([]byte, n), make([]byte, n)
		if _, err := f.ReadAt(got, off); err != nil {
			return fmt.Errorf("read %d at %d: %w", n, off, err)
		}
		if _, err := ref.ReadAt(want, off); err != nil {
			return fmt.Errorf("reference %d at %d: %w", n, off, err)
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("wrong bytes in %d at %d", n, off)
		}
	}
	return nil
}

// handsChild does to one file at a time what it is told, a line an order:
// "open PATH", "forget" what the kernel has cached of it, "read OFFSET LENGTH",
// "close", "chdir PATH". It answers each with "ok", "ok
// HASH" or the errno.
func handsChild([]string) error {
	var f *os.File
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		var answer string
		var err error
		order, rest, _ := strings.Cut(orders.Text(), " ")
		switch order {
		case "open":
			f, err = os.Open(rest)
		case "read":
			var off, n int64
			fmt.Sscan(rest, &off, &n)
			b := make([]byte, n)
			if _, err = f.ReadAt(b, off); err == nil {
				answer = " " + hash(b)
			}
		case "forget":
			err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		case "chdir":
			err = os.Chdir(rest)
		case "close":
			err = f.Close()
		}
		var errno syscall.Errno
		switch {
		case errors.As(err, &errno):
			fmt.Println(unix.ErrnoName(errno))
		case err != nil:
			fmt.Println(err)
		default:
			fmt.Println("ok" + answer)
		}
	}
	return orders.Err()
}

// hands drives a handsChild.
type hands struct {
	p     *swarm.Process
	lines int
}

func newHands(t *testing.T, s *swarm.Swarm) *hands {
	t.Helper()
	return &hands{p: s.Spawn(child(t, "hands"))}
}

// do gives an order and returns the answer.
func (h *hands) do(format string, args ...any) string {
	h.p.Tell(fmt.Sprintf(format, args...))
	h.lines++
	return h.p.Line(h.lines - 1)
}

// must gives an order that has to succeed with the bytes hashed in want.
func (h *hands) must(t *testing.T, want, format string, args ...any) {
	t.Helper()
	if got := h.do(format, args...); got != strings.TrimSpace("ok "+want) {
		t.Fatalf("%s: %s, want ok %s", fmt.Sprintf(format, args...), got, want)
	}
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// hashAt is the hash that a read of n bytes at off gives, from a local file.
func hashAt(t *testing.T, path string, off, n int64) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(f, off, n), b); err != nil {
		t.Fatal(err)
	}
	return hash(b)
}
