package fs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// BenchmarkUploadSmall copies 10,000 files of 10 KiB into the mount, and natively with a sync after it, as ratio.
func BenchmarkUploadSmall(b *testing.B) {
	source := filepath.Join(b.TempDir(), "source")
	sh(b, `mkdir "$1" && cd "$1" && for d in $(seq 100); do mkdir $d; for f in $(seq 100); do head -c 10240 /dev/urandom >$d/$f; done; done`, source)
	u := mountUpload(b, uploadSpec{})
	native := b.TempDir()
	for b.Loop() {
		n := timed(b, `cp -r "$1" "$2/copy" && sync "$2"`, source, native)
		m := timed(b, `cp -r "$1" "$2/copy"`, source, u.dir)
		u.ok("settle")
		if files := len(u.told().Closed); files < 10_000 {
			b.Fatalf("%d files reported", files)
		}
		b.ReportMetric(m.Seconds(), "s/mount")
		b.ReportMetric(n.Seconds(), "s/native")
		b.ReportMetric(m.Seconds()/n.Seconds(), "mount/native")
		sh(b, `rm -r "$1/copy" "$2/copy"`, native, u.dir)
		u.ok("clear")
	}
}

// BenchmarkUploadBig writes a file of 1 GiB into the mount and natively, in turn, and tells the ratio of the best rates:
// into the page cache, and with fsync.
func BenchmarkUploadBig(b *testing.B) {
	for name, through := range map[string]bool{"passthrough": true, "here": false} {
		b.Run(name, func(b *testing.B) {
			u := mountUpload(b, uploadSpec{NoPassthrough: !through})
			native := b.TempDir()
			for b.Loop() {
				for _, end := range []string{"", " conv=fsync"} {
					script := `dd if=/dev/zero of="$1/big" bs=1M count=1024` + end + ` 2>&1`
					best := map[string]time.Duration{native: time.Hour, u.dir: time.Hour}
					for range 3 {
						for dir := range best {
							best[dir] = min(best[dir], timed(b, script, dir))
							sh(b, `rm "$1/big"; sync`, dir)
						}
					}
					b.ReportMetric(best[native].Seconds(), "s/native"+strings.ReplaceAll(end, " ", "+"))
					b.ReportMetric(best[native].Seconds()/best[u.dir].Seconds(), "rate/native"+strings.ReplaceAll(end, " ", "+"))
				}
			}
		})
	}
}

func timed(b *testing.B, script string, args ...string) time.Duration {
	b.Helper()
	os.Stdout.Sync()
	start := time.Now()
	sh(b, script, args...)
	return time.Since(start)
}

// BenchmarkUploadQuota copies a file of 1 GiB into a mount without a quota and into one with, in turn, and tells the ratio of
// the best times.
func BenchmarkUploadQuota(b *testing.B) {
	source := filepath.Join(b.TempDir(), "source")
	sh(b, `head -c 1G /dev/urandom >"$1"`, source)
	free, bound := mountUpload(b, uploadSpec{}), mountUpload(b, uploadSpec{Quota: 8 << 30})
	for b.Loop() {
		for _, end := range []string{"", "; sync -d $2/big"} {
			best := map[string]time.Duration{free.dir: time.Hour, bound.dir: time.Hour}
			for range 5 {
				for dir := range best {
					best[dir] = min(best[dir], timed(b, `cp "$1" "$2/big"`+end, source, dir))
					sh(b, `rm "$1/big"; sync`, dir)
				}
			}
			name := map[bool]string{true: "", false: "+sync"}[end == ""]
			b.ReportMetric(best[free.dir].Seconds(), "s/free"+name)
			b.ReportMetric(float64(best[bound.dir])/float64(best[free.dir]), "quota/free"+name)
		}
	}
}
