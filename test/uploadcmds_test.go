package test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestUploadsCancelRetry: files and protected content that wait for providers are cancelled, stay so over a restart, and
// go on when they are retried or written again.
func TestUploadsCancelRetry(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	first := s.Start("provider", "--provider")
	writer := s.Start("writer")
	writer.Connect(first)
	file := s.RandomFile(1<<20, 6, "file")
	manifest := writer.Add(file, "--protect", "4,2", "--upload")
	up := writer.Mount("up", "", "--upload", "--name", "work")
	s.MustSh(`mkdir "$1/d"; for f in kept retried d/written d/gone; do cp "$2" "$1/$f"; echo "$f" >> "$1/$f"; done; ln "$1/retried" "$1/linked"`, up, file)
	s.Eventually("the files to wait for providers", func() bool {
		waiting := 0
		for _, u := range uploadsOf(t, writer) {
			if strings.HasPrefix(u.Text, "uploading: needs 6 providers") {
				waiting++
			}
		}
		return waiting > 0 && len(uploadsOf(t, writer)) > 2 // content, directory, its manifest
	})

	if out := writer.Must("uploads", "cancel", up, "retried"); !strings.HasPrefix(out, "1 upload cancelled") {
		t.Errorf("cancel printed %q", out)
	}
	if out := writer.Must("uploads", "cancel", up, up+"/d"); !strings.HasPrefix(out, "2 uploads cancelled") {
		t.Errorf("cancel of a directory printed %q", out)
	}
	writer.Must("uploads", "cancel", manifest)
	refused(t, writer, 1, []string{"nothing of the name", "holdfast uploads"}, "uploads", "retry", "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku")
	refused(t, writer, 1, []string{"is not below"}, "uploads", "cancel", up, "../other")
	cancelled := func(when string, names ...string) {
		t.Helper()
		for _, name := range names {
			state := s.MustSh(`cd "$1"; getfattr --only-values -n user.holdfast.state "$2"; getfattr --only-values -n user.holdfast.error "$2"`, up, name)
			if state != "failedcancelled" {
				t.Errorf("%s %s is %s", name, when, state)
			}
		}
	}
	cancelled("when cancelled", "retried", "linked", "d/written", "d/gone")

	writer.Stop()
	writer.Start()
	writer.AwaitMounted(up)
	cancelled("after a restart", "retried", "linked", "d/written", "d/gone")
	s.MustSh(`echo more >> "$1/d/written"; chmod 600 "$1/d/gone"; mv "$1/d/gone" "$1/d/moved"`, up)
	for i := range 6 {
		writer.Connect(s.Start(fmt.Sprint("late", i), "--provider"))
	}
	writer.Must("uploads", "retry", up, "kept") // looks for providers at once
	before := syncOf(t, writer, up)
	if got, want := s.MustSh(`holdfast=$1; HOLDFAST_PATH=$2 $holdfast ls "$3" | sort | xargs; HOLDFAST_PATH=$2 $holdfast ls "$3/d" | xargs`, s.Bin, writer.Repo, before.Root), "d kept\nwritten\n"; got != want {
		t.Errorf("what is synced is %q, want %q", got, want)
	}
	cancelled("when others are synced", "retried", "linked", "d/moved")
	for _, u := range uploadsOf(t, writer) {
		if u.State != "uploaded" && u.Text != "failed: cancelled" {
			t.Errorf("an upload is %s", u.Text)
		}
	}

	writer.Must("uploads", "retry", up, ".")
	writer.Must("uploads", "retry", manifest)
	after := syncOf(t, writer, up)
	m := writer.Mount("m", after.Root)
	s.MustSh(`diff -r "$1" "$2"`, m, up)
	writer.Must("umount", m)
	s.Eventually("the content to be uploaded", func() bool {
		for _, u := range uploadsOf(t, writer) {
			if u.State != "uploaded" {
				return false
			}
		}
		return true
	})
	writer.Must("umount", up)
}

// TestUmountPending: umount says what is still to be uploaded, and the daemon goes on with it, also after kill -9 and
// without the mount; umount --wait waits, and an interrupt leaves the directory mounted.
func TestUmountPending(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	first := s.Start("provider", "--provider")
	writer := s.Start("writer")
	writer.Connect(first)
	up := writer.Mount("up", "", "--upload", "--name", "work")
	file := s.RandomFile(1<<20, 7, "file")
	s.MustSh(`cp "$2" "$1/one"; cp "$2" "$1/two"; echo 2 >> "$1/two"`, up, file)
	wait := s.Spawn(writer.Command("umount", "--wait", up))
	s.Eventually("umount to wait", wait.Waits)
	wait.Signal(syscall.SIGINT)
	if code := wait.Wait(swarm.Patience); code != 130 || !strings.Contains(wait.Err(), "stays mounted") {
		t.Errorf("interrupted umount ended with %d: %s", code, wait.Err())
	}
	if len(s.Mounted(up)) != 1 {
		t.Error("an interrupted umount has unmounted")
	}
	if out := writer.Must("umount", up); !strings.Contains(out, ": 2 files, 2.0 MiB\n") || !strings.Contains(out, "the daemon goes on") {
		t.Errorf("umount printed %q", out)
	}
	writer.Kill()
	for i := range 6 {
		s.Start(fmt.Sprint("late", i), "--provider").Connect(first)
	}
	writer.Start()
	s.Eventually("the files to go up without the mount", func() bool {
		groups := 0
		for _, u := range uploadsOf(t, writer) {
			if u.State != "uploaded" {
				return false
			}
			groups++
		}
		return groups > 1
	})

	up = writer.Mount("up2", "", "--upload", "--name", "work")
	s.MustSh(`cp "$2" "$1/three"; echo 3 >> "$1/three"`, up, file)
	if out := writer.Must("umount", "--wait", up); out != "" {
		t.Errorf("umount --wait printed %q", out)
	}
	up = writer.Mount("up3", "", "--upload", "--name", "work")
	if out := writer.Must("umount", up); out != "" {
		t.Errorf("umount of what is synced printed %q", out)
	}
}

// TestStagingQuota copies twice the staging quota into an upload directory: what is uploaded makes room, reads back
// from the providers when the node has no block of it any more, can be written again, and survives renames, a restart and
// an unmount. What can't be uploaded is refused with ENOSPC.
func TestStagingQuota(t *testing.T) {
	t.Run("passthrough", func(t *testing.T) { stagingQuota(t, "--passthrough=true") })
	t.Run("here", func(t *testing.T) { stagingQuota(t, "--passthrough=false") })
}

func stagingQuota(t *testing.T, passthrough string) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 8)
	writer := s.Start("writer")
	for _, p := range all {
		writer.Connect(p)
	}
	tree := s.Mkdir("tree")
	s.MustSh(`cd "$1"; for i in $(seq 30); do head -c 1M /dev/urandom > $i; done; mkdir d; mv 1 2 3 d`, tree)
	up := writer.Mount("up", "", "--upload", "--name", "work", "--staging-quota", "16MiB", passthrough)
	staged := func() (n int) {
		t.Helper()
		for _, kib := range strings.Fields(s.MustSh(`find "$1" -type f -printf '%k\n'`, writer.Repo+"/staging/work")) {
			var k int
			fmt.Sscan(kib, &k)
			n += k
		}
		return n
	}
	within := func(when string) {
		t.Helper()
		if kib := staged(); kib > 16<<10 {
			t.Errorf("%d KiB are staged %s", kib, when)
		}
	}
	s.MustSh(`cp -a "$1/." "$2/"`, tree, up)
	within("when all is copied")
	s.MustSh(`diff -r "$1" "$2"`, tree, up)
	syncOf(t, writer, up)
	within("when all is uploaded")

	// No block is here any more: what is evicted comes from providers, two of which are gone.
	writer.Must("gc")
	writer.Stop()
	all[1].Kill()
	all[4].Kill()
	writer.Start()
	writer.AwaitMounted(up)
	s.MustSh(`diff -r "$1" "$2"`, tree, up)
	s.MustSh(`for d in "$1" "$2"; do cd "$d"; printf more >> 5; mv 6 6~; mv 6~ six; mv d d~; rm 7; chmod 600 8; done; diff -r "$1" "$2"
		test $(stat -c %a "$2/8") = 600`, tree, up)
	synced := syncOf(t, writer, up)
	out, err := s.Sh(`head -c 20M /dev/zero > "$1/large"`, up)
	if err == nil || !strings.Contains(err.Error(), "No space left") {
		t.Errorf("a file larger than the quota: %s, %v", out, err)
	}
	within("after a file that is too large")
	writer.Must("umount", up)

	fresh := s.Start("fresh")
	fresh.Connect(all[0])
	m := fresh.Mount("m", synced.Manifest)
	s.MustSh(`diff -r "$1" "$2"`, m, tree)
	fresh.Must("umount", m)
}

// repairedLinks is what the tests look at of `holdfast repair --json`.
type repairedLinks struct {
	Links struct {
		Links, Placed, Renewed, Unheard int
		Lost                            []struct{ Reason string }
		Waiting                         string
	}
	Fetched, Rebuilt, Lost int
}

func repairOf(t *testing.T, n *swarm.Node, args ...string) (r repairedLinks) {
	t.Helper()
	must(t, json.Unmarshal([]byte(n.Must(append([]string{"repair", "--json"}, args...)...)), &r))
	return r
}

// TestRepairLinks: a repair of an upload directory, and of protected content, finds out at once that a provider has
// vanished, and has its chunks kept by others, though the node has no block of them any more.
func TestRepairLinks(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 8)
	writer := s.Start("writer")
	for _, p := range all {
		writer.Connect(p)
	}
	tree := s.ManyFiles(60, "tree")
	s.RandomFile(5<<20, 8, "tree", "big")
	manifest := writer.Add(s.RandomFile(3<<20, 9, "file"), "--protect", "4,2", "--upload")
	up := writer.Mount("up", "", "--upload", "--name", "work")
	s.MustSh(`cp -a "$1" "$2/"`, tree, up)
	synced := syncOf(t, writer, up)
	s.Eventually("the content to be uploaded", func() bool {
		return !slices.ContainsFunc(uploadsOf(t, writer), func(u upload) bool { return u.State != "uploaded" })
	})
	for _, args := range [][]string{{up}, {"--links", manifest}} {
		if r := repairOf(t, writer, args...); r.Links.Links == 0 || len(r.Links.Lost)+r.Links.Placed+r.Links.Renewed+r.Links.Unheard > 0 || r.Links.Waiting != "" {
			t.Errorf("repair %v of what is whole: %+v", args, r)
		}
	}

	kept := make(map[string]int) // links by provider
	for _, l := range linksOf(t, writer) {
		if l.State == "signed" {
			kept[l.Provider]++
		}
	}
	var gone *swarm.Node
	for _, p := range all {
		if gone == nil || kept[p.Identity().ID] > kept[gone.Identity().ID] {
			gone = p
		}
	}
	lost := gone.Identity().ID
	writer.Must("gc")
	gone.Kill()
	directory, content := repairOf(t, writer, synced.Manifest, "--links"), repairOf(t, writer, manifest)
	n := 0
	for _, r := range []repairedLinks{directory, content} {
		n += len(r.Links.Lost)
		for _, l := range r.Links.Lost {
			if !strings.HasPrefix(l.Reason, "vanished") {
				t.Errorf("a link was lost because: %s", l.Reason)
			}
		}
		if r.Links.Placed != len(r.Links.Lost) || r.Lost > 0 {
			t.Errorf("repaired: %+v", r)
		}
	}
	if n == 0 || n != kept[lost] {
		t.Errorf("%d links were lost, the provider had %d", n, kept[lost])
	}
	for _, l := range linksOf(t, writer) {
		if l.State == "signed" && l.Provider == lost {
			t.Errorf("chunk %s is still counted at the provider that is gone", l.Chunk)
		}
	}
	refused(t, writer, 1, []string{"no upload directory"}, "repair", tree)
	writer.Must("umount", up)
}
