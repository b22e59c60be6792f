package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// readAll reads the file from its start to its end in pieces of 1 MiB and
// returns how many bytes there were.
func readAll(path string, buf []byte) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var total int64
	for {
		n, err := f.Read(buf)
		total += int64(n)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// readBig reads a file that must have want bytes.
func readBig(path string, want int64) error {
	got, err := readAll(path, make([]byte, 1<<20))
	if err == nil && got != want {
		err = fmt.Errorf("read %s: %d bytes, want %d", path, got, want)
	}
	return err
}

// readSmall reads many files of smallFile bytes, one after the other.
func readSmall(paths []string) error {
	buf := make([]byte, 64<<10)
	for _, p := range paths {
		got, err := readAll(p, buf)
		if err != nil {
			return err
		}
		if got != smallFile {
			return fmt.Errorf("read %s: %d bytes, want %d", p, got, smallFile)
		}
	}
	return nil
}

// statAll stats every path.
func statAll(paths []string) error {
	var st unix.Stat_t
	for _, p := range paths {
		if err := unix.Lstat(p, &st); err != nil {
			return fmt.Errorf("stat %s: %w", p, err)
		}
		if st.Size != smallFile {
			return fmt.Errorf("stat %s: %d bytes, want %d", p, st.Size, smallFile)
		}
	}
	return nil
}

const page = 4 << 10

// randomPages are count page-aligned offsets of a file of bytes bytes, none
// twice, the same for the same seed; fewer where the file has fewer pages.
func randomPages(bytes int64, count int, seed uint64) []int64 {
	pages := int(bytes / page)
	rng := rand.New(rand.NewPCG(seed, 0))
	chosen := make(map[int]bool, count)
	var offsets []int64
	for len(offsets) < min(count, pages) {
		if p := rng.IntN(pages); !chosen[p] {
			chosen[p] = true
			offsets = append(offsets, int64(p)*page)
		}
	}
	return offsets
}

// readPages reads a page at each offset, depth of them at a time, each by a
// thread that waits in pread.
func readPages(path string, offsets []int64, depth int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	// The scheduler takes a while to notice that a thread waits in the kernel;
	// with room for all of them none has to be noticed.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(depth + 2))
	var group errgroup.Group
	for worker := range depth {
		group.Go(func() error {
			buf := make([]byte, page)
			for i := worker; i < len(offsets); i += depth {
				n, err := unix.Pread(fd, buf, offsets[i])
				if err != nil || n != page {
					return fmt.Errorf("pread %s at %d: %d bytes, %w", path, offsets[i], n, err)
				}
			}
			return nil
		})
	}
	return group.Wait()
}
