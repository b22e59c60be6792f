package test

import (
	"strings"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// stateOf is what the mount says of a file's upload.
func stateOf(s *swarm.Swarm, p string) string {
	return strings.TrimSpace(s.MustSh(`getfattr --only-values -n user.holdfast.state "$1" 2>/dev/null`, p))
}

// TestExpiredUpload: what providers need not keep any more is told, never evicted, holds up nothing that comes after it,
// and is uploaded anew when that is asked for.
func TestExpiredUpload(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 6)
	writer := s.Start("writer")
	writer.Connect(all[0])
	up := writer.Mount("up", "", "--upload", "--expiry", "10s", "--staging-quota", "16MiB", "--passthrough=false")
	old := s.RandomFile(6<<20, 1, "old")
	s.MustSh(`cp "$1" "$2/"`, old, up)
	syncOf(t, writer, up)
	s.Eventually("the file to expire", func() bool { return stateOf(s, up+"/old") == "failed" })
	if out := s.MustSh(`getfattr --only-values -n user.holdfast.error "$1/old"`, up); !strings.Contains(out, "expired") {
		t.Errorf("the error is %q", out)
	}
	for range 2 {
		if out, err := writer.Run("sync", up); err == nil || !strings.Contains(out+err.Error(), "expired") {
			t.Errorf("sync: %s, %v", out, err)
		}
		s.MustSh(`head -c 5000000 /dev/urandom > "$1/new$RANDOM"`, up)
	}
	// More than the quota has room for: what is evicted is none of what nobody else has.
	s.MustSh(`for i in 1 2 3; do head -c 3000000 /dev/urandom > "$1/more$i" || exit 0; done`, up)
	writer.Must("gc")
	s.MustSh(`cmp "$1" "$2/old"`, old, up)

	writer.Must("uploads", "retry", up)
	s.Eventually("the file to be uploaded anew", func() bool { return stateOf(s, up+"/old") == "uploaded" })
	writer.Must("umount", up)
}

// TestLostIsReadFromStaging: of a file more shards are lost than can be rebuilt, and no block of it is in the store. It is
// whole in staging.
func TestLostIsReadFromStaging(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 9)
	writer := s.Start("writer", "--audit-interval", "2s", "--vanish-after", "2s")
	writer.Connect(all[0])
	up := writer.Mount("up", "", "--upload")
	file := s.RandomFile(5<<20, 1, "file")
	s.MustSh(`mkdir "$2/d"; cp "$1" "$2/d/"; ln -s file "$2/d/link"`, file, up)
	syncOf(t, writer, up)
	writer.Must("gc")
	holders, _ := signedAt(t, writer)
	killed := 0
	for _, p := range all[1:] {
		if holders[p.Identity().ID] > 0 && killed < 3 {
			p.Kill()
			killed++
		}
	}
	if killed < 3 {
		t.Fatalf("only %d hold anything", killed)
	}
	s.Eventually("the loss to be noticed", func() bool { return stateOf(s, up+"/d/file") != "uploaded" })
	synced := syncOf(t, writer, up)
	if state := stateOf(s, up+"/d/file"); state != "uploaded" {
		t.Errorf("it is %s", state)
	}
	writer.Must("umount", up)
	if out, err := writer.Run("mount", "--detach", "--upload", "--protect", "2,1", up); err == nil || !strings.Contains(err.Error(), "protected by 4,2") {
		t.Errorf("mounted with another code: %s, %v", out, err)
	}
	writer.Stop()
	fresh := s.Start("fresh")
	fresh.Connect(all[0])
	fresh.Must("get", synced.Manifest, "-o", s.Path("out"))
	s.MustSh(`cmp "$1" "$2/d/file"`, file, s.Path("out"))
}
