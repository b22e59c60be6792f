package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// encodeRows set the codec beside the Reed-Solomon library's own benchmark, on the same shapes. Both are
// benchmarks of the erasure room, where that library has its one home.
func encodeRows() []row {
	var rows []row
	for _, shape := range []string{"4x2x1024K", "4x2x10K", "10x4x1024K", "64x32x256K"} {
		half := func(which string) func(*bench) sample {
			return func(b *bench) sample { return b.goBenchmark("erasure", "BenchmarkEncode/"+shape+"/"+which) }
		}
		rows = append(rows, row{
			name: "encode " + shape + ", against the library's own",
			unit: unitBytes,
			goal: goal{atLeast, 0.5},
			ours: half("equal"),
			ref:  half("library"),
		})
	}
	return rows
}

var benchmarkRate = regexp.MustCompile(`([0-9.]+) MB/s`)

// goBenchmark runs one Go benchmark of this source tree by itself and returns the rate that it printed.
func (b *bench) goBenchmark(pkg, name string) sample {
	exact := "^" + strings.ReplaceAll(name, "/", "$/^") + "$"
	cmd := exec.CommandContext(b.ctx, b.testBinary(pkg), "-test.run=^$", "-test.bench="+exact, "-test.benchtime=500ms")
	out := b.output(cmd)
	found := benchmarkRate.FindAllStringSubmatch(out, -1)
	if len(found) != 1 {
		b.Fatalf("%s printed %d rates: %s", name, len(found), out)
	}
	rate, err := strconv.ParseFloat(found[0][1], 64)
	b.must(err, "read the rate of "+name)
	return sample{work: rate * 1e6, took: time.Second}
}

// testBinary is the program of a package's tests, built when it is first asked for.
func (b *bench) testBinary(pkg string) string {
	path := filepath.Join(b.swarm.Dir, filepath.Base(pkg)+".test")
	if _, err := os.Stat(path); err != nil {
		b.command(exec.Command("go", "test", "-c", "-o", path, "github.com/holdfastfs/holdfast/"+pkg))
	}
	return path
}
