package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
)

func TestARepoWhosePortIsTakenSaysSoInOneLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, c := w.daemon()
	id, err := c.ID(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	addr, _, _ := strings.Cut(id.Addresses[0], "/p2p/")
	for listen, why := range map[string]string{addr: "address already in use", "/ip4/127.0.0.1": "no transport"} {
		other := newWorld(t)
		other.env = append(other.env, "HOLDFAST_LISTEN="+listen)
		_, said, code := other.run("id")
		if code != 1 || !strings.Contains(said, why) || strings.Count(said, "\n") != 2 {
			t.Errorf("%s: code %d, said %q", listen, code, said)
		}
	}
}

func TestMountsAreRestoredWhenTheirPlaceIsBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.file("tree/f", "content")
	root := w.must("add", "-q", "tree")
	m, away := filepath.Join(w.dir, "m"), filepath.Join(w.dir, "away")
	if err := os.Mkdir(m, 0o755); err != nil {
		t.Fatal(err)
	}
	p, _ := w.daemon()
	w.must("mount", "--detach", "--timeout", "7s", root, m)
	p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		t.Fatalf("the daemon ended with code %d: %s", code, p.err.String())
	}
	if err := os.Rename(m, away); err != nil {
		t.Fatal(err)
	}
	_, c := w.daemon()
	state := func() string {
		mounts, err := c.Mounts(context.Background())
		if err != nil || len(mounts) != 1 || !mounts[0].Remembered {
			return ""
		}
		return mounts[0].State
	}
	w.until("the mount has failed", func() bool { return strings.HasPrefix(state(), "failed: ") })
	if err := os.Rename(away, m); err != nil {
		t.Fatal(err)
	}
	w.until("it is restored", func() bool { return state() == api.StateMounted })
	w.must("umount", m)
	if out := w.must("mounts", "--json"); out != "[]" {
		t.Errorf("after umount there are %s", out)
	}
}
