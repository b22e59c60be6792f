//go:build long

package fs

import (
	"testing"
)

// TestUploadBuildCache builds with the compiler's cache in the mount, which a Go program fills from many processes.
func TestUploadBuildCache(t *testing.T) {
	u := mountUpload(t, uploadSpec{})
	sh(t, `cd "$1"; set -e; export GOFLAGS=-mod=mod GOTOOLCHAIN=local GOPROXY=off GOCACHE="$1/cache" GOTMPDIR="$1/tmp"; mkdir tmp m; cd m
		printf 'module example.com/m\n\ngo 1.26\n' >go.mod; printf 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println() }\n' >main.go
		go build -o prog .; go build -o other .; cmp prog other; touch main.go; go build -o other .; cmp prog other`, u.dir)
	u.expectInStep(t)
}

// TestUploadManyFiles has more files than descriptors.
func TestUploadManyFiles(t *testing.T) {
	u := mountUpload(t, uploadSpec{})
	sh(t, `cd "$1"; for d in $(seq 60); do mkdir $d; (cd $d; seq 1000 | xargs touch); done; find . -type f | wc -l | grep -qx 60000; ls -lR >/dev/null`, u.dir)
	u.expectCount(t, 60_000)
	sh(t, `cd "$1"; rm -r *`, u.dir)
}
