package fs

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUploadRoom writes, copies and allocates more than the quota while closed files can be evicted: it is refused only
// where what is open takes all.
func TestUploadRoom(t *testing.T) {
	u := mountUpload(t, uploadSpec{Quota: testQuota, NoPassthrough: true, MakeRoom: true})
	const size = testQuota / 4
	for i := range 10 {
		write(t, u.path(fmt.Sprint("file", i)), string(random(size, uint64(i))))
		u.ok("settle")
	}
	for i := range 10 {
		checkFile(t, u.path(fmt.Sprint("file", i)), random(size, uint64(i)))
	}
	if used := u.used(); used > testQuota {
		t.Errorf("%d bytes are staged, the quota is %d", used, testQuota)
	}
	back := openAs(t, u.path("file0"), os.O_RDWR) // evicted long ago, and brought back
	if _, err := back.WriteAt([]byte("x"), 0); err != nil {
		t.Error(err)
	}
	if err := back.Close(); err != nil {
		t.Error(err)
	}
	u.ok("settle")

	big := openAs(t, u.path("big"), os.O_CREATE|os.O_RDWR)
	if err := unix.Fallocate(int(big.Fd()), 0, 0, testQuota-1<<20); err != nil {
		t.Errorf("allocate all that there is: %v", err)
	}
	if err := unix.Fallocate(int(big.Fd()), 0, 0, 2*testQuota); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("allocate more than the quota: %v", err)
	}
	if _, err := big.WriteAt(make([]byte, 2<<20), testQuota-1<<20); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write where nothing can be evicted: %v", err)
	}
	want := random(size, 0)
	want[0] = 'x'
	checkFile(t, u.path("file0"), want)
}
