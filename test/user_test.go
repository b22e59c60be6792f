package test

import (
	"strings"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

// devices gives a mount namespace a /dev of few devices, all for everybody.
const devices = `mount -t tmpfs -o size=1m tmpfs /dev; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9; `

// TestOrdinaryUserMounts mounts as a user who is not root, through fusermount3,
// where the kernel gives no passthrough.
func TestOrdinaryUserMounts(t *testing.T) {
	s := swarm.New(t)
	user := newOrdinary(s)
	tree := s.ManyFiles(30, "tree")
	s.RandomFile(9<<20, 1, "tree", "big")
	s.RandomFile(9<<20, 2, "tree", "sub", "big")
	out, err := user.run(devices+`mknod -m 666 /dev/fuse c 10 229`, "bash", "-euc", `
		tree="$1"; cd; root="$(holdfast add -q "$tree")"
		holdfast mount --detach "$root" m
		diff -r "$tree" m; diff -r "$tree" m; df -T m | grep fuse.holdfast > /dev/null; ! touch m/new 2> /dev/null
		holdfast mounts | grep mounted > /dev/null
		holdfast umount m; test -z "$(ls m)"
		mkfifo said; holdfast mount "$root" m > said & read -r line < said; case "$line" in mounted*) ;; *) exit 1 ;; esac
		cmp m/sub/big "$tree/sub/big"; fusermount3 -u m; wait %1`, "bash", tree)
	if err != nil {
		t.Errorf("an ordinary user's mount: %v: %s", err, out)
	}
}

// TestOrdinaryUserMayNotMount takes from that user what a mount needs.
func TestOrdinaryUserMayNotMount(t *testing.T) {
	s := swarm.New(t)
	user := newOrdinary(s)
	out, err := user.run(":", "holdfast", "add", "-q", s.ManyFiles(3, "tree"))
	must(t, err)
	root := strings.TrimSpace(out)

	hide := `mount --bind /dev/null "$(readlink -f "$(command -v fusermount3)")"`
	out, err = user.run(hide, "holdfast", "mount", root, user.home+"/m")
	complains(t, "mount without fusermount3", out, err, 1, []string{"fusermount3"})
	out, err = user.run(devices, "holdfast", "mount", root, user.home+"/m")
	complains(t, "mount without /dev/fuse", out, err, 1, []string{"/dev/fuse"})
	out, err = user.run(devices+`mknod -m 600 /dev/fuse c 10 229`, "holdfast", "mount", root, user.home+"/m")
	complains(t, "mount without a right to /dev/fuse", out, err, 1, []string{"/dev/fuse"})
	nothingMounted(t, s)

	out, err = user.run(hide, "holdfast", "cat", root+"/entry-0000002")
	if err != nil || out != "2" {
		t.Errorf("without a mount cat reads %q, %v", out, err)
	}
}

// ordinary is the user nobody, with a home that holds an empty directory m.
type ordinary struct {
	s         *swarm.Swarm
	home, bin string
}

func newOrdinary(s *swarm.Swarm) *ordinary {
	o := &ordinary{s: s, home: s.Mkdir("home"), bin: s.Mkdir("bin")}
	s.MustSh(`chmod 755 "$1"; mkdir "$2/m"; chown -R 65534:65534 "$2"; cp "$3" "$4/holdfast"`, s.Dir, o.home, s.Bin, o.bin)
	return o
}

// run runs a command as the user, in namespaces of its own that end with it,
// after prepare has run there as root.
func (o *ordinary) run(prepare string, args ...string) (string, error) {
	const script = `exec unshare -m -p -f --mount-proc --kill-child bash -euc '
		eval "$1"; home="$2"; bin="$3"; shift 3
		exec setpriv --reuid=65534 --regid=65534 --clear-groups env -i HOME="$home" PATH="$bin:$PATH" HOLDFAST_PATH="$home/repo" "$@"' bash "$@"`
	return o.s.Sh(script, append([]string{prepare, o.home, o.bin}, args...)...)
}
