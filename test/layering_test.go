package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"
)

const module = "github.com/holdfastfs/holdfast"

// layer is a room, or a sub-room with rules of its own, and which of our
// packages it may import. A package belongs to the longest prefix that fits.
type layer struct {
	room   string
	may    []string // prefixes below the module
	reason string
}

// layers is the layering of the house. Rooms meet only in cmd, through small
// interfaces that each declares for itself.
var layers = []layer{
	{"erasure", nil, "a pure codec everyone may import must import no one"},
	{"blockcache", nil, "storage near the reader knows neither the network nor file systems; its Origin is joined in cmd"},
	{"exchange", []string{"exchange", "erasure"}, "the exchange serves from and writes to a Store of its own wording"},
	{"fs/unixfs", nil, "reading a format needs blocks, wherever they come from"},
	{"fs", []string{"fs"}, "a mount knows its Blocks, not who brings them"},
	{"uploader/dag", nil, "building a DAG needs a sink and nothing else"},
	{"uploader/seal", []string{"erasure"}, "both ends of a storage link share it, so it leans on neither"},
	{"uploader/provider", []string{"erasure", "exchange/payment", "uploader/seal", "uploader/provider"}, "the other end of a link must not know the writer's state"},
	{"uploader", []string{"erasure", "exchange/payment", "uploader/dag", "uploader/seal", "uploader"}, "the writer places chunks through interfaces, whatever carries them"},
	{"cmd", []string{""}, "the command joins all rooms"},
	{"test", []string{""}, "tests look at the whole house"},
}

// homes names the one place of each heavy library.
var homes = []struct {
	library string
	rooms   []string
	reason  string
}{
	{"github.com/hanwen/go-fuse", []string{"fs"}, "only fs talks to the kernel"},
	{"github.com/libp2p/", []string{"exchange", "uploader", "cmd"}, "only the exchange, link protocol adapters and the command talk to peers"},
	{"github.com/dgraph-io/ristretto", []string{"blockcache"}, "the memory tier is one"},
	{"github.com/klauspost/reedsolomon", []string{"erasure"}, "the codec is one"},
}

type goPackage struct {
	ImportPath, Name string
	Imports          []string
}

func TestLayering(t *testing.T) {
	packages := listPackages(t)
	if len(packages) < 6 {
		t.Fatalf("go list found only %d packages", len(packages))
	}
	for _, p := range packages {
		rel := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		l, ok := layerOf(rel)
		if !ok {
			t.Errorf("%s is in no room", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			checkOurs(t, rel, l, imp)
			checkHome(t, rel, imp)
		}
	}
}

func checkOurs(t *testing.T, rel string, l layer, imp string) {
	t.Helper()
	ours, isOurs := strings.CutPrefix(imp, module+"/")
	if !isOurs || below(ours, rel) || path.Base(ours) == "pb" && below(ours, l.room) {
		return
	}
	for _, m := range l.may {
		if below(ours, m) {
			return
		}
	}
	t.Errorf("%s imports %s: %s", rel, ours, l.reason)
}

func checkHome(t *testing.T, rel, imp string) {
	t.Helper()
	for _, h := range homes {
		if !strings.HasPrefix(imp, h.library) || below(rel, "test") {
			continue
		}
		home := false
		for _, room := range h.rooms {
			home = home || below(rel, room)
		}
		if !home {
			t.Errorf("%s imports %s: %s", rel, imp, h.reason)
		}
	}
}

func layerOf(rel string) (layer, bool) {
	var best layer
	found := false
	for _, l := range layers {
		if below(rel, l.room) && (!found || len(l.room) > len(best.room)) {
			best, found = l, true
		}
	}
	return best, found
}

// below says whether p is dir or lies in it; everything lies below "".
func below(p, dir string) bool {
	return dir == "" || p == dir || strings.HasPrefix(p, dir+"/")
}

// TestTopLevel keeps the top of the tree to the rooms and the files a newcomer
// expects there.
func TestTopLevel(t *testing.T) {
	allowed := " cmd fs blockcache exchange uploader erasure test bin go.mod go.sum README.md Makefile LICENSE CHANGELOG.md "
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !strings.Contains(allowed, " "+e.Name()+" ") {
			t.Errorf("%s does not belong at the top level", e.Name())
		}
	}
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Imports", "./...")
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var packages []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}
