package test

import (
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

// TestProviderOnAFullDisk fills the disk of one of six providers amid an upload. It lives on and refuses; the upload
// waits for a sixth, and goes on when there is room.
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
	first, second := s.RandomFile(4<<20, 1, "first"), s.RandomFile(40<<20, 2, "second")
	kept := writer.Add(first, "--protect", "4,2", "--upload")
	uploaded(t, s, writer, 1)

	pid := small.Pid()
	writer.Add(second, "--protect", "4,2", "--upload")
	s.Eventually("some of it to come", func() bool { return storedBytes(t, all) > 12<<20 })
	s.MustSh(`cat /dev/zero > "$1/ballast" 2>/dev/null || true`, disk)
	s.Eventually("the upload to wait, or to be there already", func() bool {
		for _, l := range linksOf(t, writer) {
			if l.State != "signed" && l.State != "failed" {
				return false
			}
		}
		return true
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
	fresh.Must("get", kept, "-o", s.Path("out"))
	s.MustSh(`cmp "$1" "$2"`, first, s.Path("out"))
}
