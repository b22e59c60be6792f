package fs

import (
	"path/filepath"
	"testing"
)

// toolTests are what people do with directories. Each script runs in an empty directory of the mount; $1 is a tree
// outside it, $2 an empty directory outside it. They run with set -e.
var toolTests = map[string]string{
	"cp":           `cp -a "$1" a; diff -r --no-dereference "$1" a; cp -r "$1" b; diff -r --no-dereference "$1" b; cp -a a c; diff -r --no-dereference a c; cp -a a "$2/out"; diff -r --no-dereference "$1" "$2/out"`,
	"mv":           `cp -r "$1" a; mv a b; diff -r --no-dereference "$1" b; mkdir d; mv b d/c; diff -r --no-dereference "$1" d/c; mv d/c "$2/out"; diff -r --no-dereference "$1" "$2/out"; mv "$2/out" back; diff -r --no-dereference "$1" back; test ! -e d/c`,
	"rm":           `cp -r "$1" a; rm -rf a; test -z "$(ls -A)"`,
	"rsync":        `rsync -a "$1/" a/; diff -r --no-dereference "$1" a; test -z "$(rsync -ani "$1/" a/)"; echo new >a/text; rsync -a --delete "$1/" a/; diff -r --no-dereference "$1" a`,
	"rsyncInplace": `rsync -a --inplace "$1/" a/; echo more >>a/text; touch -d @5 a/text; rsync -a --inplace "$1/" a/; diff -r --no-dereference "$1" a; mkdir extra a/extra; rsync -a --delete "$1/" a/; test ! -e a/extra`,
	"rsyncDelay":   `rsync -a --delay-updates --partial --checksum "$1/" a/; diff -r --no-dereference "$1" a; rsync -aH --sparse "$1/" b/; diff -r --no-dereference "$1" b`,
	"tar":          `tar cf - -C "$1" . | tar xf -; diff -r --no-dereference "$1" .; tar cf "$2/out.tar" .; mkdir "$2/out"; tar xf "$2/out.tar" -C "$2/out"; diff -r --no-dereference "$1" "$2/out"; tar df "$2/out.tar"`,
	"git": `git init -q repo; cd repo; git config user.email a@b; git config user.name c; cp -r "$1" tree; git add .; git commit -qm one
		for i in 1 2 3 4 5; do echo $i >>tree/text; git commit -qam "change $i"; done; git gc -q; git fsck --full --strict; git status --porcelain | (! grep .)
		cd ..; git clone -q repo clone; diff -r --no-dereference repo/tree clone/tree; cd clone; git checkout -q HEAD~3; git worktree add -q ../side; git -C ../side log --oneline | wc -l | grep -qx 3`,
	"sqlite": `sqlite3 db "pragma journal_mode=wal; create table t(a integer primary key, b text);" | grep -qx wal
		for w in 1 2 3; do (i=0; while [ $i -lt 20 ]; do sqlite3 -cmd ".timeout 20000" db "insert into t(b) values ('$w.$i');"; i=$((i+1)); done) & done; wait
		test "$(sqlite3 db 'select count(*) from t')" = 60; sqlite3 db 'pragma integrity_check' | grep -qx ok; sqlite3 db 'pragma journal_mode=delete; vacuum; pragma integrity_check' | tail -1 | grep -qx ok`,
	"vim":      `printf 'one\ntwo\n' >file; chmod 640 file; vim -Nu NONE -es -c 'set backup writebackup swapfile' -c '%s/two/three/' -c 'wq' file; printf 'one\nthree\n' | cmp - file; test "$(stat -c %a file)" = 640; test ! -e .file.swp`,
	"dd":       `dd if=/dev/urandom of=a bs=64k count=20 conv=fsync status=none; dd if=a of=b bs=4k conv=fdatasync status=none; cmp a b; dd if=a of=b bs=4096 oflag=direct status=none; cmp a b; dd if=a bs=4096 iflag=direct status=none | cmp - a; dd if=a of=b bs=1k seek=3 count=1 conv=notrunc oflag=append,sync status=none`,
	"truncate": `truncate -s 1G sparse; test "$(stat -c %s sparse)" = 1073741824; test "$(du -k sparse | cut -f1)" -lt 100; echo x >>sparse; truncate -s 5 sparse; test "$(tr -d '\0' <sparse | wc -c)" = 0; fallocate -l 1M full; test "$(du -k full | cut -f1)" -ge 1024; fallocate -p -o 0 -l 512K full; test "$(stat -c %s full)" = 1048576`,
	"look":     `cp -r "$1" a; test "$(find a -type f | wc -l)" = "$(find "$1" -type f | wc -l)"; du -s a >/dev/null; df . | grep -q holdfast; (cd "$1" && find . -type f -exec sha256sum {} + ) >"$2/sums"; cd a; sha256sum --quiet -c "$2/sums"; ls -lR >/dev/null; find . -newer text >/dev/null`,
	"two":      `(for i in $(seq 200); do echo one >>log; done) & (for i in $(seq 200); do echo two >>log; done) & wait; test "$(sort log | uniq -c | tr -s ' ' | tr '\n' ,)" = ' 200 one, 200 two,'`,
	"flock":    `echo 0 >n; for w in 1 2 3 4; do (for i in $(seq 20); do flock n sh -c 'echo $(($(cat n)+1)) >n'; done) & done; wait; test "$(cat n)" = 80`,
	"go": `export GOFLAGS=-mod=mod GOTOOLCHAIN=local GOPROXY=off; mkdir -p m/inner; cd m; printf 'module example.com/m\n\ngo 1.26\n' >go.mod
		printf 'package inner\n\nfunc Say() string { return "built" }\n' >inner/inner.go; printf 'package main\n\nimport (\n\t"os"\n\n\t"example.com/m/inner"\n)\n\nfunc main() { os.Stdout.WriteString(inner.Say()) }\n' >main.go
		go build -o prog .; test "$(./prog)" = built; go vet ./...; cp prog other; ./other >/dev/null; rm prog; go build -o prog .; ./prog >/dev/null`,
}

// TestUploadTools runs them all.
func TestUploadTools(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source")
	sh(t, `mkdir "$1"; cd "$1"; mkdir -p deep/er/still; echo text >text; chmod 750 text; ln -s text link; ln -s nowhere dangling; head -c 3000000 /dev/urandom >big
		for i in $(seq 40); do head -c $((i*317)) /dev/urandom >"deep/er/file $i"; done; echo kept >deep/er/still/kept; touch -d @1234567.5 deep/er/still; : >empty; chmod 400 empty`, source)
	bothWays(t, func(t *testing.T, u *uploaded) {
		t.Cleanup(func() { u.expectInStep(t) })
		for name, script := range toolTests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				dir := u.path(name)
				sh(t, `mkdir "$1"`, dir)
				sh(t, `cd "$1"; shift; set -e; `+script, dir, source, t.TempDir())
			})
		}
	})
}
