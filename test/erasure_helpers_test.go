package test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/test/swarm"
)

// The code of the datasets here: six columns, any two of which may go.
const (
	codeK, codeM = 4, 2
	columns      = codeK + codeM
)

// Where `status --json` tells of rebuilt blocks.
const (
	stripesRebuilt = "recovery.stripes"
	blocksRebuilt  = "recovery.blocks"
	bytesRebuilt   = "recovery.bytes"
)

// scattered is a dataset of which six processes hold a column each, and nobody all of it.
type scattered struct {
	*swarm.Swarm
	t        *testing.T
	source   string // the path that was added
	root     string
	manifest string
	stripes  []erasure.Stripe
	holders  [columns]*swarm.Process
	dead     map[int]bool
}

// scatter adds a path to a node, has each process fetch its column of it, and stops the node. Of the columns
// in dead there is no holder.
func scatter(t *testing.T, s *swarm.Swarm, source string, dead ...int) *scattered {
	t.Helper()
	a := s.Start("a")
	c := &scattered{Swarm: s, t: t, source: source, dead: make(map[int]bool)}
	for _, i := range dead {
		c.dead[i] = true
	}
	c.manifest = a.Add(source, "--protect", fmt.Sprintf("%d,%d", codeK, codeM))
	address := a.Identity().Addresses[0]
	for _, i := range others(columns, dead...) {
		c.holders[i] = s.Spawn(child(t, "hold", s.Mkdir("column"+itoa(i)), c.manifest, itoa(i), address))
	}
	c.look(address)
	for _, i := range others(columns, dead...) {
		c.holders[i].Line(0)
	}
	a.Stop()
	return c
}

// look reads root and stripes out of the manifest, as a peer of the node that has everything.
func (c *scattered) look(address string) {
	c.t.Helper()
	h := newHolder(c.t, c.Mkdir("looker"))
	must(c.t, h.Connect(c.t.Context(), address))
	m, err := h.Manifest(c.t.Context(), mustCID(c.t, c.manifest))
	must(c.t, err)
	if k, parity := m.Code(); k != codeK || parity != codeM {
		c.t.Fatalf("the manifest is of a (%d,%d) code", k, parity)
	}
	c.root = m.Root().String()
	for s, err := range m.Stripes(c.t.Context()) {
		must(c.t, err)
		c.stripes = append(c.stripes, s)
	}
}

func newHolder(t *testing.T, dir string) *swarm.Holder {
	t.Helper()
	h, err := swarm.NewHolder(dir)
	must(t, err)
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("end of a peer: %v", err)
		}
	})
	return h
}

func mustCID(t *testing.T, text string) cid.Cid {
	t.Helper()
	c, err := cid.Decode(text)
	must(t, err)
	return c
}

// reader is a new node that is connected to those who hold a column and live.
func (c *scattered) reader(name string, args ...string) *swarm.Node {
	c.t.Helper()
	n := c.Start(name, args...)
	c.connect(n)
	return n
}

// connect has a node dial those who hold a column and live.
func (c *scattered) connect(n *swarm.Node) {
	c.t.Helper()
	connect := []string{"connect"}
	for i, h := range c.holders {
		if !c.dead[i] {
			connect = append(connect, h.Line(0))
		}
	}
	n.Must(connect...)
}

// kill ends who holds the columns.
func (c *scattered) kill(columns ...int) {
	for _, i := range columns {
		c.holders[i].Kill()
		c.dead[i] = true
	}
}

// columnOf is the column in which the root lies.
func (c *scattered) columnOfRoot() int {
	c.t.Helper()
	for _, s := range c.stripes {
		for i, d := range s.Data {
			if d.CID.String() == c.root {
				return i
			}
		}
	}
	c.t.Fatal("the root is in no stripe")
	return 0
}

// others are n columns, data first, without those named.
func others(n int, but ...int) (out []int) {
	for i := range columns {
		if len(out) < n && !slices.Contains(but, i) {
			out = append(out, i)
		}
	}
	return out
}

// gone counts the blocks that dead columns held, and lists those that nothing brings back.
func (c *scattered) gone() (recoverable int, lost *cid.Set) {
	lost = cid.NewSet()
	for _, s := range c.stripes {
		have := 0
		var gone []cid.Cid
		for i, shard := range s.Shards() {
			switch {
			case shard.Bytes == 0 || !c.dead[swarm.ColumnOf(s, codeK, i)]:
				have++
			case i < len(s.Data):
				gone = append(gone, shard.CID)
			}
		}
		if have >= len(s.Data) {
			recoverable += len(gone)
			continue
		}
		for _, b := range gone {
			lost.Add(b)
		}
	}
	return recoverable, lost
}

// verified is what `verify --json` prints.
type verified struct {
	Root        string `json:"root"`
	Manifest    string `json:"manifest"`
	Data        found  `json:"data"`
	Parity      found  `json:"parity"`
	Bytes       int64  `json:"bytes"`
	Stripes     int    `json:"stripes"`
	WeakStripes int    `json:"weak_stripes"`
	LostStripes int    `json:"lost_stripes"`
}

type found struct {
	Local       int `json:"local"`
	Reachable   int `json:"reachable"`
	Recoverable int `json:"recoverable"`
	Lost        int `json:"lost"`
}

// verify runs `verify --json`, which has to end with the code.
func (c *scattered) verify(n *swarm.Node, code int, args ...string) (v verified) {
	c.t.Helper()
	out, err := n.Run(append([]string{"verify", "--json"}, args...)...)
	got := 0
	var exit *swarm.ExitError
	if errors.As(err, &exit) {
		got = exit.Code
	}
	if got != code || err != nil && exit == nil {
		c.t.Fatalf("verify %v: code %d, want %d: %v", args, got, code, err)
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		c.t.Fatalf("verify --json: %v: %s", err, out)
	}
	return v
}

// told fails the test unless a node's log and status tell of rebuilt blocks.
func (c *scattered) told(n *swarm.Node) {
	c.t.Helper()
	contains(c.t, "the log of "+n.Name, n.Log(), "lost blocks are rebuilt", c.root)
	stripes, blocks, bytes := n.Figure(stripesRebuilt), n.Figure(blocksRebuilt), n.Figure(bytesRebuilt)
	c.t.Logf("%s rebuilt %d stripes, %d blocks, %d MiB", n.Name, stripes, blocks, bytes>>20)
	if stripes == 0 || blocks < stripes || bytes < blocks {
		c.t.Errorf("status of %s: %d stripes, %d blocks, %d bytes", n.Name, stripes, blocks, bytes)
	}
}

// holdChild keeps columns of a protected dataset.
func holdChild(args []string) error { return swarm.Hold(args, os.Stdin, os.Stdout) }

// readsChild reads files below a directory, many at a time, and prints each one's path and "ok" with the
// hash of all it read, or the errno. args: directory, file of paths.
func readsChild(args []string) error {
	list, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	paths := make(chan string)
	answers := make(chan string)
	var readers sync.WaitGroup
	for range 256 {
		readers.Go(func() {
			for path := range paths {
				answers <- path + "\t" + readWhole(filepath.Join(args[0], path))
			}
		})
	}
	go func() {
		for path := range strings.Lines(string(list)) {
			paths <- strings.TrimSuffix(path, "\n")
		}
		close(paths)
		readers.Wait()
		close(answers)
	}()
	out := bufio.NewWriter(os.Stdout)
	for a := range answers {
		fmt.Fprintln(out, a)
	}
	return out.Flush()
}

// readWhole says how it goes to read a file.
func readWhole(path string) string {
	b, err := os.ReadFile(path)
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	case err != nil:
		return err.Error()
	}
	return "ok " + hash(b)
}
