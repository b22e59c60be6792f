package test

import (
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// TestTemporaryNames uploads what only looks like something that editors and copying tools will rename, and what nobody
// renames before it is synced.
func TestTemporaryNames(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 6)
	writer := s.Start("writer")
	for _, p := range all {
		writer.Connect(p)
	}
	up := writer.Mount("up", "", "--upload", "--name", "work")
	s.MustSh(`cd "$1"; echo notes >notes; mv notes .env.Sample; echo x >x; ln x .hard.Sample; ln -s x .soft.Sample; ln -s x "link~"
		mkdir .site.Backup "old~"; echo in >.site.Backup/in; cp x "old~/x~"; mv x .x.swp; echo y >y; mv y 4913`, up)
	synced := syncOf(t, writer, up)
	fresh := s.Start("fresh")
	fresh.Connect(all[0])
	m := fresh.Mount("m", synced.Manifest)
	s.MustSh(`diff -r --no-dereference "$1" "$2"`, up, m)
	fresh.Must("umount", m)

	// Over a restart, and after a rename to another such name.
	s.MustSh(`cd "$1"; mv .env.Sample .env.Template1; mv .env.Template1 .env.Final9; mv "old~" "older~"; echo more >>.hard.Sample; echo new >"new~"`, up)
	writer.Must("umount", "--wait", up)
	s.MustSh(`test -e "$1/staging/work/new~"`, writer.Repo)
	up = writer.Mount("up", "", "--upload", "--name", "work")
	again := syncOf(t, writer, up)
	m = fresh.Mount("m", again.Manifest)
	s.MustSh(`diff -r --no-dereference "$1" "$2"; test -e "$2/new~"`, up, m)
	fresh.Must("umount", m)
	writer.Must("umount", up)
}
