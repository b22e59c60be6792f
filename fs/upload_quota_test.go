package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const testQuota = 8 << 20

func (u *uploaded) used() int64 {
	u.tb.Helper()
	n, err := strconv.ParseInt(u.tell("staged"), 10, 64)
	if err != nil {
		u.tb.Fatal(err)
	}
	return n
}

// inStaging is what the files in staging take on the disk.
func (u *uploaded) inStaging() (sum int64) {
	u.tb.Helper()
	out := sh(u.tb, `find "$1" -type f -printf '%i %b\n' | sort -u`, u.spec.Staging) // hard links once
	for _, line := range splitLines(out) {
		_, blocks, _ := strings.Cut(line, " ")
		n, err := strconv.ParseInt(blocks, 10, 64)
		if err != nil {
			u.tb.Fatal(err)
		}
		sum += n * 512
	}
	return sum
}

// TestUploadQuota fills an upload directory from several writers at once, and empties it again.
func TestUploadQuota(t *testing.T) {
	for name, through := range map[string]bool{"passthrough": true, "here": false} {
		t.Run(name, func(t *testing.T) {
			u := mountUpload(t, uploadSpec{Quota: testQuota, NoPassthrough: !through})
			var st unix.Statfs_t
			if err := unix.Statfs(u.dir, &st); err != nil || int64(st.Blocks)*st.Frsize != testQuota || st.Bavail != st.Blocks {
				t.Errorf("statfs: %+v, %v", st, err)
			}
			write(t, u.path("first"), string(random(testQuota*7/8, 1)))
			if n := u.stats().Passthrough; n != 0 {
				t.Errorf("%d files were written in passthrough", n)
			}
			checkFile(t, u.path("first"), random(testQuota*7/8, 1))
			if n := u.stats().Passthrough; through != (n == 1) {
				t.Errorf("%d files were read in passthrough", n)
			}
			var writers sync.WaitGroup
			full := make([]int, 4)
			for i := range full {
				writers.Go(func() {
					f, err := os.Create(u.path(fmt.Sprint("writer", i)))
					if err != nil {
						t.Error(err)
						return
					}
					defer f.Close()
					for range 8 {
						if _, err := f.Write(random(100_000, uint64(i))); errors.Is(err, syscall.ENOSPC) {
							full[i]++
						} else if err != nil {
							t.Error(err)
						}
					}
				})
			}
			writers.Wait()
			u.ok("settle")
			if used, there := u.used(), u.inStaging(); used != there || used > testQuota || used < testQuota*7/8 {
				t.Errorf("%d bytes counted, %d there, quota %d", used, there, testQuota)
			}
			if full[0]+full[1]+full[2]+full[3] == 0 {
				t.Errorf("nobody was refused")
			}
			f := openAs(t, u.path("first"), os.O_RDWR)
			if _, err := f.WriteAt([]byte("what is there can be overwritten"), 4096); err != nil {
				t.Error(err)
			}
			if err := unix.Fallocate(int(f.Fd()), 0, testQuota, testQuota); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("allocate: %v", err)
			}
			if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4<<20); err != nil {
				t.Error(err)
			}
			if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20); err != nil {
				t.Error(err)
			}
			f.Close()
			u.ok("settle")
			if used, there := u.used(), u.inStaging(); used != there {
				t.Errorf("%d bytes counted, %d there", used, there)
			}
			sh(t, `rm "$1"/*`, u.dir)
			eventually(t, "all room is free", func() bool { return u.used() == 0 })
		})
	}
}

// TestUploadQuotaStrict has one writer go for more than the quota, in every way there is: it never has a byte more.
func TestUploadQuotaStrict(t *testing.T) {
	for name, through := range map[string]bool{"passthrough": true, "here": false} {
		t.Run(name, func(t *testing.T) {
			u := mountUpload(t, uploadSpec{Quota: testQuota, NoPassthrough: !through})
			strict := func(how string) {
				t.Helper()
				if there := u.inStaging(); there > testQuota {
					t.Errorf("%s: %d bytes are there, quota %d", how, there, testQuota)
				}
			}
			fill := func(f *os.File) {
				t.Helper()
				for range 2 * testQuota >> 20 {
					if _, err := f.Write(make([]byte, 1<<20)); errors.Is(err, syscall.ENOSPC) {
						return
					} else if err != nil {
						t.Fatal(err)
					}
				}
				t.Error("nobody was refused")
			}
			f := openAs(t, u.path("big"), os.O_CREATE|os.O_WRONLY)
			fill(f)
			strict("written")
			if _, err := f.WriteAt(make([]byte, 2*testQuota), 0); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("one large write: %v", err)
			}
			strict("written at once")
			var st unix.Statfs_t
			if err := unix.Statfs(u.dir, &st); err != nil || int64(st.Bavail)*st.Bsize >= 1<<20 {
				t.Errorf("statfs: %+v, %v", st, err)
			}
			if err := f.Truncate(0); err != nil {
				t.Error(err)
			}
			f.Close()

			// Beside a reader, who has it in passthrough.
			small := random(1<<20, 1)
			write(t, u.path("big"), string(small))
			openAs(t, u.path("big"), os.O_RDONLY)
			f = openAs(t, u.path("big"), os.O_WRONLY|os.O_APPEND)
			fill(f)
			strict("appended beside a reader")
			f.Close()

			// Holes take nothing.
			f = openAs(t, u.path("big"), os.O_RDWR|os.O_TRUNC)
			if err := f.Truncate(2 * testQuota); err != nil {
				t.Fatal(err)
			}
			f.Close()
			other := openAs(t, u.path("other"), os.O_CREATE|os.O_WRONLY)
			fill(other)
			strict("beside a file with holes")
		})
	}
}

// TestUploadQuotaBack brings bytes back that were evicted before the start.
func TestUploadQuotaBack(t *testing.T) {
	u := mountUpload(t, uploadSpec{Quota: testQuota})
	source := filepath.Join(t.TempDir(), "source")
	write(t, source, string(random(5<<20, 1)))
	sh(t, `cp "$1" "$2/one"; head -c 2M /dev/zero >"$2/two"`, source, u.dir)
	u.ok("settle")
	u.evictOK(t, "one")
	u.ok("unmount")
	u.kill()
	v := u.again()
	v.ok("build", source)
	f := openAs(t, v.path("one"), os.O_WRONLY|os.O_APPEND)
	v.ok("settle")
	if used, there := v.used(), v.inStaging(); used != there || used < 7<<20 {
		t.Errorf("%d bytes counted, %d there", used, there)
	}
	if _, err := f.Write(make([]byte, 2<<20)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("beyond the quota: %v", err)
	}
}

// TestUploadQuotaPast has a writer, past us, go over the quota by a mapping into holes, beside a reader: all others are
// refused while it still writes.
func TestUploadQuotaPast(t *testing.T) {
	u := mountUpload(t, uploadSpec{Quota: testQuota})
	write(t, u.path("big"), "text")
	openAs(t, u.path("big"), os.O_RDONLY)
	if u.stats().Passthrough == 0 {
		return // the kernel or the rights do not allow it
	}
	f := openAs(t, u.path("big"), os.O_RDWR)
	if err := f.Truncate(testQuota + 1<<20); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, testQuota+1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(mem); i += 4096 {
		mem[i] = 1
	}
	if err := unix.Munmap(mem); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the writer is measured", func() bool { return u.used() > testQuota })
	other := openAs(t, u.path("other"), os.O_CREATE|os.O_WRONLY)
	if _, err := other.Write([]byte("x")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("another writer: %v", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(u.dir, &st); err != nil || st.Bavail != 0 {
		t.Errorf("statfs: %+v, %v", st, err)
	}
	f.Close()
	f = openAs(t, u.path("big"), os.O_WRONLY)
	if _, err := f.WriteAt([]byte("x"), testQuota+2<<20); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the writer, once it opens again: %v", err)
	}
	if err := f.Truncate(0); err != nil {
		t.Error(err)
	}
	if _, err := other.Write([]byte("x")); err != nil {
		t.Error(err)
	}
}

// TestUploadQuotaEvict makes room by eviction, and takes it again.
func TestUploadQuotaEvict(t *testing.T) {
	u := mountUpload(t, uploadSpec{Quota: testQuota})
	write(t, u.path("one"), string(random(5<<20, 1)))
	u.ok("settle")
	u.evictOK(t, "one")
	if used := u.used(); used > 64<<10 {
		t.Errorf("%d bytes are counted after the eviction", used)
	}
	write(t, u.path("two"), string(random(5<<20, 2)))
	if f, err := os.OpenFile(u.path("one"), os.O_WRONLY, 0); !errors.Is(err, syscall.ENOSPC) {
		f.Close()
		t.Errorf("brought back without room: %v", err)
	}
	checkFile(t, u.path("one"), random(5<<20, 1))
	if err := os.Remove(u.path("two")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the room is free", func() bool { return u.used() < 1<<20 })
	f := openAs(t, u.path("one"), os.O_RDWR)
	f.WriteAt([]byte("x"), 0)
	f.Close()
	u.ok("settle")
	if used, there := u.used(), u.inStaging(); used != there || used < 5<<20 {
		t.Errorf("%d bytes counted, %d there", used, there)
	}
}
