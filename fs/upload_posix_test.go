package fs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"
)

// notPOSIX are tests that the local file system fails too, because they ask for something else than POSIX: that two
// descriptors of one process exclude each other by record locks. See TestUploadLocks for what they must do.
var notPOSIX = map[string]bool{"FcntlFlockLocksFile": true}

// TestUploadPosix runs go-fuse's tests of POSIX behaviour, in passthrough and without. Nothing may be left out.
func TestUploadPosix(t *testing.T) {
	for name, through := range map[string]bool{"passthrough": true, "here": false} {
		t.Run(name, func(t *testing.T) {
			u := mountUpload(t, uploadSpec{NoPassthrough: !through})
			for name, test := range posixtest.All {
				if !notPOSIX[name] && name != "XAttrLarge" {
					runWhole(t, u, name, test)
				}
			}
			runWhole(t, mountUpload(t, uploadSpec{NoPassthrough: !through, Staging: roomyStaging(t)}), "XAttrLarge", posixtest.XAttrLarge)
		})
	}
}

// runWhole runs a test in a directory of its own and has it fail if it leaves itself out.
func runWhole(t *testing.T, u *uploaded, name string, test func(*testing.T, string)) {
	t.Run(name, func(t *testing.T) {
		dir := filepath.Join(u.dir, name)
		sh(t, `mkdir "$1"`, dir)
		defer func() {
			if t.Skipped() {
				t.Error("left out")
			}
		}()
		test(t, dir)
	})
}

// roomyStaging gives a directory for staging whose file system takes large attributes: the ordinary one, or memory.
func roomyStaging(t *testing.T) string {
	dir := t.TempDir()
	if err := unix.Setxattr(dir, "user.large", make([]byte, 10<<10), 0); err == nil {
		if err := unix.Removexattr(dir, "user.large"); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	dir, err := os.MkdirTemp("/dev/shm", "holdfast-staging")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
