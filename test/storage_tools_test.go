package test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// workshop is what people do in directories. Each script runs with set -e in a directory of its own below the mount; $1
// is a tree outside it.
var workshop = map[string]string{
	"git": `git init -q repo; cd repo; git config user.email a@b; git config user.name c; cp -r "$1" tree; git add .; git commit -qm one
		for i in 1 2 3 4 5; do echo $i >>tree/text; git commit -qam "change $i"; done; git gc -q; git fsck --full --strict
		cd ..; git clone -q repo clone; cd clone; git checkout -q HEAD~3; git -C ../repo gc -q --aggressive --prune=now`,
	"sqlite": `sqlite3 db "pragma journal_mode=wal; create table t(a integer primary key, b text);" >/dev/null
		for w in 1 2 3; do (for i in 1 2 3 4 5 6 7 8; do sqlite3 -cmd ".timeout 20000" db "insert into t(b) values ('$w.$i');"; done) & done; wait
		sqlite3 db 'pragma wal_checkpoint(truncate); pragma journal_mode=delete; vacuum;' >/dev/null`,
	"vim":   `printf 'one\ntwo\n' >file; chmod 640 file; for i in 1 2 3; do vim -Nu NONE -es -c 'set backup writebackup swapfile' -c "\$s/.*/line $i/" -c 'wq' file; done`,
	"tar":   `tar cf - -C "$1" . | tar xf -; tar cf ../all.tar .; rm -rf deep; tar xf ../all.tar; mv ../all.tar .`,
	"rsync": `rsync -a "$1/" a/; echo new >a/text; echo extra >a/extra; rsync -a --delete "$1/" a/; rsync -a --inplace "$1/" b/; echo more >>b/text; touch -d @5 b/text; rsync -a --inplace --checksum "$1/" b/; rsync -a --delay-updates "$1/" c/`,
	"moves": `cp -a "$1" a; mv a b; mkdir d; mv b d/c; cp -a "$1" gone; rm -rf gone; ln d/c/text hard; ln -s d/c/text soft; mv d/c/deep deeper`,
	"replace": `for i in $(seq 150); do echo "version $i of many" >new; mv new file; echo "$i" >"tmp.$i"; mv "tmp.$i" "kept $i"; done
		python3 -c 'import os
for i in range(300):
    with open("t", "w") as f: f.write("written %d" % i)
    os.rename("t", "renamed-%d" % i)'`,
	"names": `echo one >notes; mv notes .env.sample; echo two >it; ln it .hard.sample; ln -s it .soft.sample; mkdir .site.backup "old~"; echo three >.site.backup/in; echo four >"old~/in"; echo five >saved; mv saved "saved~"`,
	"dd":    `dd if=/dev/urandom of=a bs=64k count=100 conv=fsync status=none; dd if=a of=b bs=4k conv=fdatasync status=none; dd if=/dev/zero of=b bs=1k seek=3 count=1 conv=notrunc status=none; truncate -s 9M sparse; truncate -s 5000000 a; fallocate -l 1M full`,
	"go": `export GOFLAGS=-mod=mod GOTOOLCHAIN=local GOPROXY=off; printf 'module example.com/m\n\ngo 1.26\n' >go.mod
		printf 'package main\n\nfunc main() { println("built") }\n' >main.go; go build -o prog .; go vet .`,
}

// TestToolsEndAtProviders works in an upload directory with everyday tools, all at once, and reads what came of it on a
// fresh node when the writer's machine and two of its six providers are gone.
func TestToolsEndAtProviders(t *testing.T) {
	t.Parallel()
	s := swarm.New(t)
	all := providers(s, 6)
	writer := s.Start("writer")
	writer.Connect(all[0])
	up := writer.Mount("up", "", "--upload", "--protect", "4,2")
	source := s.Path("source")
	s.MustSh(`mkdir "$1"; cd "$1"; mkdir -p deep/er/still; echo text >text; chmod 750 text; ln -s text link; head -c 5000000 /dev/urandom >big
		for i in $(seq 40); do head -c $((i*317)) /dev/urandom >"deep/er/file $i"; done; touch -d @1234567.5 deep/er/still; : >empty`, source)

	var tools sync.WaitGroup
	for name, script := range workshop {
		tools.Go(func() {
			if out, err := s.Sh(`set -e; mkdir "$2/$3"; cd "$2/$3"; `+script, source, up, name); err != nil {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
		})
	}
	tools.Wait()
	want := s.Path("want")
	s.MustSh(`cp -a "$1" "$2"`, up, want)
	state := syncOf(t, writer, up)
	s.MustSh(`diff -r --no-dereference "$1" "$2"`, up, want)

	writer.Kill()
	must(t, os.RemoveAll(writer.Repo))
	all[2].Kill()
	all[5].Kill()
	fresh := s.Start("fresh")
	fresh.Connect(all[0])
	m := fresh.Mount("m", state.Manifest)
	s.MustSh(`diff -r --no-dereference "$1" "$2"`, want, m)
	const shape = `cd "$1" && find . -mindepth 1 ! -type l -printf '%P %y %m %T@\n' | sort`
	if got, want := s.MustSh(shape, m), s.MustSh(shape, want); got != want {
		t.Errorf("modes and times differ:\n%s", s.MustSh(`diff "$1" "$2" || true`, s.WriteFile(got, "got.txt"), s.WriteFile(want, "want.txt")))
	}
	s.MustSh(`git -c safe.directory='*' -C "$1/git/repo" fsck --full --strict`, m)
	s.MustSh(`test "$(sqlite3 "file:$1/sqlite/db?immutable=1" 'select count(*) from t; pragma integrity_check')" = "$(printf '24\nok')"`, m)
	s.MustSh(`test "$("$1/go/prog" 2>&1)" = built`, m)
	fresh.Must("umount", filepath.Clean(m))
}
