package fs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crowdSteps is how many things each member of the crowd does.
const crowdSteps = 250

// TestUploadCrowd has programs do at random whatever can be done with files, in each other's way, while files are
// evicted and read for their upload. In the end everybody agrees on what there is.
func TestUploadCrowd(t *testing.T) {
	for name, through := range map[string]bool{"passthrough": true, "here": false} {
		t.Run(name, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Log("seed", seed)
			u := mountUpload(t, uploadSpec{NoPassthrough: !through, Quota: 1 << 40, TempNames: []string{}})
			sh(t, `mkdir "$1/a" "$1/b" "$1/own"`, u.dir)
			var working sync.WaitGroup
			for i := range 4 {
				c := crowd{t: t, u: u, r: rand.New(rand.NewPCG(seed, uint64(i))), own: u.path("own", fmt.Sprint(i))}
				working.Go(c.work)
			}
			var done atomic.Bool
			ended := make(chan struct{})
			go func() {
				working.Wait()
				done.Store(true)
				close(ended)
			}()
			r := rand.New(rand.NewPCG(seed, 99))
			evicted := 0
			for !done.Load() {
				path := crowdPath(r)
				if r.IntN(3) == 0 {
					path = fmt.Sprint("own/", r.IntN(4))
				}
				switch r.IntN(3) {
				case 0:
					if u.tell("lease", path, "1ms") == "ok" {
						u.tell("check", path)
						u.ok("unlease", path)
					}
				default:
					if u.tell("evict", path) == "ok" {
						evicted++
					}
				}
			}
			<-ended
			t.Log(evicted, "evictions")
			u.expectInStep(t)
			// The kernel lets go of files without names when it likes.
			eventually(t, "what is counted to be there", func() bool { return u.used() == u.inStaging() })
		})
	}
}

func crowdPath(r *rand.Rand) string {
	return filepath.Join([]string{"a", "b", "a/sub", "b/sub"}[r.IntN(4)], fmt.Sprint("f", r.IntN(6)))
}

// crowd is one program of many. It has one file that nobody else writes, whose bytes it knows.
type crowd struct {
	t    *testing.T
	u    *uploaded
	r    *rand.Rand
	own  string
	want []byte
}

func (c *crowd) work() {
	for range crowdSteps {
		c.step()
		if got, err := os.ReadFile(c.own); c.want != nil && (err != nil || !bytes.Equal(got, c.want)) {
			c.t.Errorf("%s: %d bytes of %d, equal %v, %v", c.own, len(got), len(c.want), bytes.Equal(got, c.want), err)
			return
		}
	}
}

func (c *crowd) path() string { return c.u.path(crowdPath(c.r)) }

// step does something; that it may fail is part of the game.
func (c *crowd) step() {
	data := bytes.Repeat([]byte{byte(c.r.IntN(256))}, c.r.IntN(20_000))
	switch c.r.IntN(14) {
	case 0, 1:
		os.WriteFile(c.path(), data, 0o644)
	case 2:
		os.Remove(c.path())
	case 3:
		os.Rename(c.path(), c.path())
	case 4:
		os.Link(c.path(), c.path())
	case 5:
		os.Truncate(c.path(), int64(c.r.IntN(30_000)))
	case 6:
		os.Chmod(c.path(), os.FileMode(0o600|c.r.IntN(0o100)))
	case 7:
		unix.Renameat2(unix.AT_FDCWD, c.path(), unix.AT_FDCWD, c.path(), unix.RENAME_EXCHANGE)
	case 8:
		os.Mkdir(filepath.Dir(c.path()), 0o755)
	case 9:
		os.Rename(filepath.Dir(c.path()), filepath.Dir(c.path()))
	case 10:
		c.mapped(c.path())
	case 11:
		c.want = data
		if err := os.WriteFile(c.own, data, 0o644); err != nil {
			c.t.Error(err)
		}
	default:
		c.change(data)
	}
}

// change writes somewhere into the program's own file.
func (c *crowd) change(data []byte) {
	f, err := os.OpenFile(c.own, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		c.t.Error(err)
		return
	}
	defer f.Close()
	off := c.r.IntN(30_000)
	if _, err := f.WriteAt(data, int64(off)); err != nil {
		c.t.Error(err)
	}
	if end := off + len(data); end > len(c.want) && len(data) > 0 {
		c.want = append(c.want, make([]byte, end-len(c.want))...)
	}
	copy(c.want[min(off, len(c.want)):], data)
	if c.want == nil {
		c.want = []byte{}
	}
}

// mapped changes a file by a mapping that outlives its descriptor.
func (c *crowd) mapped(path string) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return
	}
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		f.Close()
		return
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	f.Close()
	if err != nil {
		return
	}
	defer unix.Munmap(mem)
	// Touching a page that somebody has truncated away ends a program, so it is written by a system call that fails.
	unix.Pread(int(c.zero()), mem, 0)
}

// zero is an open file of zeros.
func (c *crowd) zero() uintptr {
	zeros.Do(func() { zeroFile, _ = os.Open("/dev/zero") })
	return zeroFile.Fd()
}

var (
	zeros    sync.Once
	zeroFile *os.File
)
