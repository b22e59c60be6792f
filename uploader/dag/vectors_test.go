package dag

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// vector is a tree whose CID, with metadata kept, is fixed in testdata/preserve.json: other implementations of the
// profile that keep metadata in this way can be held against it.
type vector struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`    // file, symlink or dir
	Bytes   int    `json:"bytes"`   // of a file: byte i is i*7+i/256, modulo 256
	Target  string `json:"target"`  // of a symlink
	Entries int    `json:"entries"` // of a dir: empty files without metadata called nnnn-000000 and so on
	Mode    uint32 `json:"mode"`    // as chmod takes it
	Seconds *int64 `json:"seconds"` // of the modification time; absent if none
	Nanos   int64  `json:"nanos"`
	CID     string `json:"cid"`
}

func TestPreserveVectors(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("testdata", "preserve.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(raw, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) < 10 {
		t.Fatalf("%d vectors", len(vectors))
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			l := v.build(t, newTestBuilder(t, newMemSink(), Config{Preserve: true}))
			if l.CID.String() != v.CID {
				t.Errorf("got %s, want %s", l.CID, v.CID)
			}
		})
	}
}

func (v vector) build(t *testing.T, b *Builder) Link {
	t.Helper()
	m := Meta{Mode: os.FileMode(v.Mode & 0o777), HasMode: true}
	for bit, flag := range map[uint32]os.FileMode{0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid, 0o1000: os.ModeSticky} {
		if v.Mode&bit != 0 {
			m.Mode |= flag
		}
	}
	if v.Seconds != nil {
		m.ModTime = time.Unix(*v.Seconds, v.Nanos)
	}
	var l Link
	var err error
	switch v.Kind {
	case "file":
		data := make([]byte, v.Bytes)
		for i := range data {
			data[i] = byte(i*7 + i/256)
		}
		l, err = b.File(context.Background(), bytes.NewReader(data), int64(v.Bytes), m)
	case "symlink":
		l, err = b.Symlink(context.Background(), v.Target, m)
	case "dir":
		d := b.Dir(m)
		empty, ferr := b.File(context.Background(), bytes.NewReader(nil), 0, Meta{})
		if ferr != nil {
			t.Fatal(ferr)
		}
		for _, name := range manyNames(v.Entries, 4) {
			if err := d.Add(name, empty); err != nil {
				t.Fatal(err)
			}
		}
		l, err = d.Close(context.Background())
	default:
		t.Fatalf("kind %q", v.Kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}
