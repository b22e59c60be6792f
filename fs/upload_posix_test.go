package fs

import (
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// TestUploadPosix runs go-fuse's tests of POSIX behaviour, in passthrough and without. Nothing may be left out.
func TestUploadPosix(t *testing.T) {
	for name, through := range map[string]bool{"passthrough": true, "here": false} {
		t.Run(name, func(t *testing.T) {
			u := mountUpload(t, uploadSpec{NoPassthrough: !through})
			for name, test := range posixtest.All {
				t.Run(name, func(t *testing.T) {
					dir := filepath.Join(u.dir, name)
					if sh(t, `mkdir "$1"`, dir); t.Failed() {
						return
					}
					defer func() {
						if t.Skipped() {
							t.Error("left out")
						}
					}()
					test(t, dir)
				})
			}
		})
	}
}
