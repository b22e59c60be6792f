package test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestUploadFromAFullDisk fills the disk of a writer: a file that does not fit is refused with ENOSPC, what was there
// goes to providers, and with room again the rest does.
func TestUploadFromAFullDisk(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 6)
	disk := s.Mkdir("disk")
	s.MustSh(`mount -t tmpfs -o size=400m tmpfs "$1"`, disk)
	writer := s.Node("disk/n", "--min-free", "64MiB")
	writer.Start()
	writer.Connect(all[0])
	up := writer.Mount("up", "", "--upload")
	first, second := s.RandomFile(8<<20, 1, "tree", "first"), s.RandomFile(40<<20, 2, "tree", "second")
	s.MustSh(`cp "$1" "$2"/`, first, up)
	leave(s, disk, 20<<20)
	out, err := s.Sh(`cp "$1" "$2"/ 2>&1 || true`, second, up)
	must(t, err)
	if want := "No space left on device"; !strings.Contains(out, want) {
		t.Errorf("cp says %q, want %q", out, want)
	}
	s.MustSh(`rm -f "$2/second"; cmp "$1" "$2/first"`, first, up)
	pid := writer.Pid()
	s.MustSh(`rm "$1"/ballast*`, disk)
	s.MustSh(`cp "$1" "$2"/`, second, up)
	synced := syncOf(t, writer, up)
	if now := writer.Pid(); now != pid || syscall.Kill(pid, 0) != nil {
		t.Errorf("the writer did not live through it: %s", writer.Log())
	}
	writer.Must("umount", up)
	writer.Kill()
	fresh := s.Start("fresh")
	fresh.Connect(all[0])
	m := fresh.Mount("m", synced.Manifest)
	s.MustSh(`diff -r "$1" "$2"`, s.Path("tree"), m)
	fresh.Must("umount", m)
}

// TestProviderOnAFullDisk fills the disk of one of six providers to the last byte amid an upload, while it stands still.
// It lives on and refuses; the upload waits for a sixth and says so, and goes on when there is room.
func TestProviderOnAFullDisk(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 5)
	disk := s.Mkdir("disk")
	s.MustSh(`mount -t tmpfs -o size=200m tmpfs "$1"`, disk)
	small := s.Node("disk/small", "--provider", "--min-free", "0")
	small.Start()
	small.Connect(all[0])
	writer := s.Start("writer")
	writer.Connect(all[0])
	const bytes = 96 << 20
	files := []string{s.RandomFile(4<<20, 1, "first"), s.RandomFile(bytes, 2, "second")}
	manifests := []string{writer.Add(files[0], "--protect", "4,2", "--upload")}
	uploaded(t, s, writer, 1)

	pid := small.Pid()
	before := writtenBytes(t, small)
	manifests = append(manifests, writer.Add(files[1], "--protect", "4,2", "--upload"))
	came := int64(0)
	s.Eventually("some of it to come", func() bool {
		must(t, syscall.Kill(pid, syscall.SIGSTOP))
		if came = writtenBytes(t, small) - before; came > 0 {
			return true
		}
		must(t, syscall.Kill(pid, syscall.SIGCONT))
		return false
	})
	s.MustSh(`cat /dev/zero > "$1/ballast" 2>/dev/null || true; test "$(df --output=avail -B1 "$1" | tail -n 1)" -eq 0`, disk)
	must(t, syscall.Kill(pid, syscall.SIGCONT))
	if came >= bytes/4 {
		t.Fatalf("the provider has %d bytes when its disk is full: all of its part", came)
	}
	s.Eventually("the upload to wait for a sixth provider", func() bool {
		all := uploadsOf(t, writer)
		if all[0].State == "uploaded" && all[1].State == "uploaded" {
			t.Fatal("all is uploaded while a disk is full")
		}
		return slices.ContainsFunc(all, func(u upload) bool { return strings.Contains(u.Text, "needs 6 providers, 5 known") })
	})
	s.MustSh(`rm "$1"/ballast*`, disk)
	writer.Must("connect", small.Identity().Addresses[0])
	uploaded(t, s, writer, 2)
	if now := small.Pid(); now != pid || syscall.Kill(pid, 0) != nil {
		t.Errorf("the provider did not live through it: %s", small.Log())
	}
	writer.Kill()
	all[1].Kill()
	all[2].Kill()
	fresh := s.Start("fresh")
	fresh.Connect(small)
	for i, file := range files {
		out := s.Path("out", strconv.Itoa(i))
		fresh.Must("get", manifests[i], "-o", out)
		s.MustSh(`cmp "$1" "$2"`, file, out)
	}
}

// writtenBytes is how much a provider has written of the chunks that it keeps; their files have their full sizes at once.
func writtenBytes(t *testing.T, n *swarm.Node) (sum int64) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(n.Repo, "chunks"))
	must(t, err)
	for _, e := range entries {
		if info, err := e.Info(); err == nil { // it may go meanwhile
			sum += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
	}
	return sum
}
