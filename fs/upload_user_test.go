package fs

import (
	"os"
	"path/filepath"
	"testing"
)

// TestUploadAsOrdinaryUser serves an upload directory without any rights. Who runs the tests without being root is
// tested by all others.
func TestUploadAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		return
	}
	device, err := os.Stat("/dev/fuse")
	if err != nil {
		t.Fatal(err)
	}
	if device.Mode().Perm()&0o006 != 0o006 {
		t.Log("users may not open /dev/fuse here: TestMountAsOrdinaryUser checks what they are told")
		return
	}
	program, dir := forNobody(t)
	staging := filepath.Join(filepath.Dir(dir), "staging")
	if err := os.Mkdir(staging, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(staging, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	spec := uploadSpec{Staging: staging}
	u := &uploaded{served: mountChild(t, childSpec{Dir: dir, Program: program, Upload: &spec}), spec: spec}
	u.says("passthrough is off")
	sh(t, `setpriv --reuid=65534 --regid=65534 --clear-groups sh -ec 'cd "$1"; mkdir d; echo x >d/f; echo y >>d/f; mv d e; ln e/f g; chmod 400 g; cat g; truncate -s 1 e/f 2>/dev/null && exit 1
		test "$(stat -c "%u %h %a %s" g)" = "65534 2 400 4"; (! chown 0 g) 2>/dev/null; cp -a e h; rm -r e' sh "$1"`, dir)
	u.expectInStep(t)
	u.ok("unmount")
}
