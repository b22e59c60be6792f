package test

import (
	"strings"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestUploadFlags asks for upload directories that cannot be: nothing is mounted or remembered, and the flag is named.
func TestUploadFlags(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	n := s.Start("writer")
	dir := s.Mkdir("up")
	for flag, value := range map[string]string{"name": "x", "protect": "2,1", "redundancy": "2", "expiry": "3d", "auto-renew": "true",
		"staging-quota": "1GB", "temporary-names": "*.part", "regions": "eu"} {
		refused(t, n, 2, []string{"--" + flag, "--upload"}, "mount", "--detach", "--"+flag+"="+value, dir)
	}
	for _, bad := range [][2]string{{"redundancy", "-1"}, {"redundancy", "65"}, {"expiry", "1s"}, {"expiry", "soon"}, {"expiry", "99999999h"},
		{"protect", "4,200"}, {"protect", "0,1"}, {"staging-quota", "much"}, {"staging-quota", "1KB"}, {"temporary-names", "[a"}} {
		out, err := n.Run("mount", "--detach", "--upload", "--"+bad[0], bad[1], dir)
		exit, ok := err.(*swarm.ExitError)
		if !ok || exit.Code == 0 {
			t.Errorf("--%s %s: %s, %v", bad[0], bad[1], out, err)
			continue
		}
		message, _, _ := strings.Cut(exit.Stderr, "\n")
		if !strings.Contains(message, "--"+bad[0]) || strings.Contains(message, "max-expiry") || strings.Count(exit.Stderr, "\n") > 2 {
			t.Errorf("--%s %s: %q", bad[0], bad[1], exit.Stderr)
		}
	}
	refused(t, n, 2, []string{"--regions", "daemon"}, "mount", "--detach", "--upload", "--regions", "eu", dir)
	nothingMounted(t, s)
	n.Stop()
	n.Start()
	if out := n.Must("mounts", "--json"); strings.Contains(out, dir) {
		t.Errorf("it is remembered: %s", out)
	}
	if out := n.Must("uploads", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("uploads: %s", out)
	}
}

// TestUploadSettings has files wait under other names than usual, and providers of one region keep them.
func TestUploadSettings(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	writer := s.Start("writer", "--regions", "eu,home")
	wanted := make(map[string]bool)
	for i, region := range []string{"us", "eu", "", "home"} {
		p := s.Start("provider"+itoa(i), "--provider", "--region", region)
		writer.Connect(p)
		wanted[p.Identity().ID] = region == "eu" || region == "home"
	}
	up := writer.Mount("up", "", "--upload", "--protect", "1,1", "--temporary-names", "*.part,@rsync")
	known := func(name string) bool {
		_, err := s.Sh(`getfattr --only-values -n user.holdfast.cid "$1"`, up+"/"+name)
		return err == nil
	}
	check := func() {
		t.Helper()
		s.MustSh(`cd "$1"; echo part >film.part; echo rsync >.film.Ab3dEf; echo backup >film~`, up)
		s.Eventually("the file that does not wait to be known", func() bool { return known("film~") })
		if known("film.part") || known(".film.Ab3dEf") {
			t.Error("a file under a temporary name does not wait")
		}
		s.MustSh(`rm "$1"/*film* "$1"/.film*`, up)
	}
	check()
	writer.Stop()
	writer.Start()
	writer.AwaitMounted(up)
	check()
	s.MustSh(`echo text >"$1/file"`, up)
	syncOf(t, writer, up)
	links := linksOf(t, writer)
	for _, l := range links {
		if !wanted[l.Provider] {
			t.Errorf("%s, of another region, has a link: %s", l.Provider, l.State)
		}
	}
	if head, _, _ := strings.Cut(writer.Must("links"), "\n"); len(links) == 0 || !strings.Contains(head, "PAID") {
		t.Errorf("%d links, head %q", len(links), head)
	}
	writer.Must("umount", up)
}
