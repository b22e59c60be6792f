package node

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/hint"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
)

// running is a node at work and a client of it.
type running struct {
	*api.Client
	node *Node
	repo string
	stop func()
}

// run starts a node in dir.
func run(t *testing.T, dir string, change func(*repo.Config)) *running {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	r, err := repo.Open(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	cfg := r.Config
	cfg.MinFreeBytes = 0
	cfg.Ledger = filepath.Join(filepath.Dir(dir), "ledger.json")
	if change != nil {
		change(&cfg)
	}
	n, err := Open(context.Background(), Config{Repo: r, Settings: cfg, Daemon: true, Version: "test", Logger: log})
	if err != nil {
		r.Close()
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	<-n.Ready()
	c, err := api.Dial(ctx, repo.SocketPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	out := &running{Client: c, node: n, repo: dir}
	stopped := false
	out.stop = func() {
		if stopped {
			return
		}
		stopped = true
		c.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the node ended with %v", err)
		}
	}
	t.Cleanup(out.stop)
	return out
}

// fresh starts a node in a new repo.
func fresh(t *testing.T, change func(*repo.Config)) *running {
	return run(t, filepath.Join(t.TempDir(), "repo"), change)
}

// addTree adds the paths and returns their roots.
func (r *running) addTree(t *testing.T, opts api.AddOptions, paths ...string) []api.Added {
	t.Helper()
	in, out := io.Pipe()
	go func() {
		out.CloseWithError(api.Pack(context.Background(), out, paths, api.PackOptions{Strict: true}))
	}()
	added, err := r.Add(context.Background(), in, opts)
	if err != nil {
		t.Fatal(err)
	}
	return added
}

// sample makes a tree with a file of every kind and returns its path and the big file's bytes.
func sample(t *testing.T) (dir string, big []byte) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "tree")
	big = make([]byte, 9<<20+17)
	rand.NewChaCha8([32]byte{1}).Read(big)
	for name, content := range map[string][]byte{"big": big, "sub/small": []byte("small"), "empty": nil} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("sub/small", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	return dir, big
}

func ref(t *testing.T, text string) api.Read {
	t.Helper()
	r, err := api.ParseRef(text)
	if err != nil {
		t.Fatal(err)
	}
	return api.Read{Ref: r, Timeout: 20 * time.Second}
}

// cat reads a file through the client.
func (r *running) cat(t *testing.T, text string) []byte {
	t.Helper()
	s, err := r.Cat(context.Background(), ref(t, text))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatIsAddedComesBack(t *testing.T) {
	n := fresh(t, nil)
	tree, big := sample(t)
	added := n.addTree(t, api.AddOptions{Pin: true, Preserve: true}, tree, filepath.Join(tree, "big"))
	if len(added) != 2 {
		t.Fatalf("roots %v", added)
	}
	root := added[0].CID
	if got := n.cat(t, root+"/big"); !bytes.Equal(got, big) {
		t.Errorf("%d bytes came back, or others", len(got))
	}
	e, err := n.Stat(context.Background(), ref(t, root+"/sub/small"))
	if err != nil || e.Kind != api.KindFile || e.Bytes != 5 || e.Mode != "0640" || e.ModTime == nil {
		t.Errorf("stat: %+v, %v", e, err)
	}
	names := map[string]string{}
	for e, err := range n.List(context.Background(), ref(t, root), true) {
		if err != nil {
			t.Fatal(err)
		}
		names[e.Name] = e.Kind
	}
	if len(names) != 4 || names["link"] != api.KindSymlink || names["sub"] != api.KindDir || names["empty"] != api.KindFile {
		t.Errorf("listed %v", names)
	}
	n.comesBackAsTar(t, root, tree)
}

// comesBackAsTar exports root and compares it with the tree it came from.
func (r *running) comesBackAsTar(t *testing.T, root, tree string) {
	t.Helper()
	s, err := r.Export(context.Background(), ref(t, root))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out := filepath.Join(t.TempDir(), "out")
	if err := api.Unpack(s, out, api.UnpackOptions{}); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(tree, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(tree, path)
		want, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(filepath.Join(out, rel))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs (%v)", rel, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRangesOfLocalAndRemoteFiles(t *testing.T) {
	a, b := fresh(t, nil), fresh(t, nil)
	_, big := sample(t)
	added, err := a.Add(context.Background(), bytes.NewReader(big), api.AddOptions{Raw: true, Pin: true})
	if err != nil {
		t.Fatal(err)
	}
	a.meets(t, b)
	for _, n := range []*running{a, b} {
		f, err := n.node.Open(context.Background(), ref(t, added[0].CID))
		if err != nil {
			t.Fatal(err)
		}
		for _, off := range []int{0, 1, 1 << 20, 5<<20 + 3, len(big) - 1, len(big)} {
			in, err := f.Reader(context.Background(), uint64(off))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(in)
			if err != nil || !bytes.Equal(got, big[off:]) {
				t.Errorf("from %d: %d bytes, %v", off, len(got), err)
			}
			in.Close()
		}
	}
}

// meets connects two nodes.
func (r *running) meets(t *testing.T, other *running) {
	t.Helper()
	id, err := other.ID(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Connect(context.Background(), id.Addresses[:1]); err != nil {
		t.Fatal(err)
	}
}

func TestAnotherNodeFetchesAndPins(t *testing.T) {
	a, b := fresh(t, nil), fresh(t, nil)
	tree, _ := sample(t)
	root := a.addTree(t, api.AddOptions{Pin: true}, tree)[0].CID
	b.meets(t, a)
	ctx := context.Background()
	pin, err := b.Pin(ctx, ref(t, root), nil)
	if err != nil || !pin.Complete || pin.Blocks < 12 {
		t.Fatalf("pin: %+v, %v", pin, err)
	}
	a.stop()
	b.comesBackAsTar(t, root, tree)
	if _, err := b.GC(ctx); err != nil {
		t.Fatal(err)
	}
	b.comesBackAsTar(t, root, tree)
	if err := b.Unpin(ctx, ref(t, root).CID); err != nil {
		t.Fatal(err)
	}
	if err := b.Unpin(ctx, ref(t, root).CID); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("unpinned twice: %v", err)
	}
	if res, err := b.GC(ctx); err != nil || res.Blocks < 12 {
		t.Errorf("collected %+v, %v", res, err)
	}
	pins, err := b.Pins(ctx)
	if err != nil || len(pins) != 0 {
		t.Errorf("pins %v, %v", pins, err)
	}
}

func TestAcknowledgedContentOutlivesTheNode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repo")
	tree, _ := sample(t)
	n := run(t, dir, nil)
	other := fresh(t, nil)
	root := n.addTree(t, api.AddOptions{Pin: true}, tree)[0].CID
	n.meets(t, other)
	before, err := n.ID(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	n.stop()
	n = run(t, dir, nil)
	n.comesBackAsTar(t, root, tree)
	after, err := n.ID(context.Background())
	if err != nil || after.ID != before.ID || after.Addresses[0] != before.Addresses[0] {
		t.Errorf("was %v, is %v (%v)", before, after, err)
	}
	pins, err := n.Pins(context.Background())
	if err != nil || len(pins) != 1 || pins[0].CID != root || !pins[0].Complete {
		t.Errorf("pins %v, %v", pins, err)
	}
	peers, err := n.Peers(context.Background())
	if err != nil || len(peers) != 1 || !peers[0].Remembered {
		t.Errorf("peers %v, %v", peers, err)
	}
}

func TestFailuresSayWhatAndWhy(t *testing.T) {
	n := fresh(t, func(c *repo.Config) { c.Timeout = 100 * time.Millisecond; c.QuotaBytes = 16 << 20 })
	tree, _ := sample(t)
	root := n.addTree(t, api.AddOptions{Pin: true}, tree)[0].CID // one of the cases fills the store
	nowhere := "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
	ctx := context.Background()
	quick := func(text string) api.Read { r := ref(t, text); r.Timeout = 100 * time.Millisecond; return r }
	for what, c := range map[string]struct {
		code api.Code
		call func() error
	}{
		"no such name":      {api.CodeNotFound, func() error { _, err := n.Stat(ctx, ref(t, root+"/nothing")); return err }},
		"through a file":    {api.CodeNotDir, func() error { _, err := n.Stat(ctx, ref(t, root+"/empty/x")); return err }},
		"cat a directory":   {api.CodeIsDir, func() error { _, err := n.Cat(ctx, ref(t, root)); return err }},
		"cat a symlink":     {api.CodeUnsupported, func() error { _, err := n.Cat(ctx, ref(t, root+"/link")); return err }},
		"nobody has it":     {api.CodeUnavailable, func() error { _, err := n.Cat(ctx, quick(nowhere)); return err }},
		"pin what is not":   {api.CodeUnavailable, func() error { _, err := n.Pin(ctx, quick(nowhere), nil); return err }},
		"list what is not":  {api.CodeUnavailable, func() error { return firstError(n.List(ctx, quick(nowhere), false)) }},
		"not a multiaddr":   {api.CodeUsage, func() error { _, err := n.Connect(ctx, []string{"there"}); return err }},
		"not mounted":       {api.CodeNotFound, func() error { return n.Unmount(ctx, t.TempDir(), false) }},
		"forget a stranger": {api.CodeUsage, func() error { return n.Forget(ctx, "somebody") }},
		"beyond the quota": {api.CodeFull, func() error {
			_, err := n.Add(ctx, io.LimitReader(rand.NewChaCha8([32]byte{2}), 64<<20), api.AddOptions{Raw: true, Pin: true})
			return err
		}},
	} {
		if err := c.call(); api.CodeOf(err) != c.code || err == nil {
			t.Errorf("%s: code %s: %v", what, api.CodeOf(err), err)
		} else if hint.Of(err) == "" && c.code != api.CodeNotDir && c.code != api.CodeUsage {
			t.Errorf("%s: no hint with %v", what, err)
		}
	}
}

func firstError(list func(func(api.Entry, error) bool)) (first error) {
	list(func(_ api.Entry, err error) bool {
		first = err
		return err == nil
	})
	return first
}

func TestUnfinishedImportsAreLetGo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repo")
	n := run(t, dir, nil)
	ctx := context.Background()
	held, err := n.node.holdImport(ctx)
	if err != nil {
		t.Fatal(err)
	}
	held.visit(ref(t, "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy").CID)
	if err := held.flush(); err != nil { // and the process is gone
		t.Fatal(err)
	}
	if pins, err := n.Pins(ctx); err != nil || len(pins) != 0 {
		t.Errorf("an import shows as pins: %v, %v", pins, err)
	}
	n.stop()
	n = run(t, dir, nil)
	if pins, err := n.node.store.Pins(ctx); err != nil || len(pins) != 0 {
		t.Errorf("still held: %v, %v", pins, err)
	}
}

func TestStatusAddsUp(t *testing.T) {
	n := fresh(t, nil)
	tree, big := sample(t)
	n.addTree(t, api.AddOptions{Pin: true}, tree)
	st, err := n.Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if st.Store.UsedBytes < uint64(len(big)) || st.Store.PinnedBytes < uint64(len(big)) || st.Pins != 1 || st.ID.ID == "" || st.Memory.Goroutines == 0 {
		t.Errorf("status %+v", st)
	}
}
