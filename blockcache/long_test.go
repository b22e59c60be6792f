//go:build long

package blockcache

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// numbered makes a small block quickly.
func numbered(t testing.TB, i uint64) blocks.Block {
	return rawBlock(t, binary.BigEndian.AppendUint64(make([]byte, 24, 32), i))
}

// heap is what lives on the heap, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestManyBlocks: 200,000 tiny blocks, or HOLDFAST_BLOCKS, are put, found, pinned, opened again after an unclean stop,
// unpinned and collected, and the store keeps next to nothing of them in memory.
func TestManyBlocks(t *testing.T) {
	n := uint64(200_000)
	if v, err := strconv.ParseUint(os.Getenv("HOLDFAST_BLOCKS"), 10, 64); err == nil {
		n = v
	}
	b := newBox(t, StoreConfig{PackBytes: 16 << 20})
	begun := time.Now()
	lap := func(what string) {
		t.Logf("%-14s %6.1f s, heap %d MiB", what, time.Since(begun).Seconds(), heap()>>20)
		begun = time.Now()
	}
	es := make([]Entry, 0, maxPart)
	for i := range n {
		if es = append(es, Entry{Block: numbered(t, i)}); len(es) == cap(es) || i == n-1 {
			mustPut(t, b, es...)
			es = es[:0]
		}
	}
	must(t, b.Sync(t.Context()))
	lap("put")
	r := rand.New(rand.NewPCG(1, 1))
	for range 50_000 {
		mustGet(t, b, numbered(t, r.Uint64N(n)))
	}
	lap("get 50,000")
	root := numbered(t, n).Cid()
	for i := uint64(0); i < n; i += 4096 {
		var cs []cid.Cid
		for j := i; j < min(i+4096, n); j += 2 {
			cs = append(cs, numbered(t, j).Cid())
		}
		must(t, b.Pin(t.Context(), root, cs))
	}
	must(t, b.FinishPin(t.Context(), root))
	lap("pin half")
	b.crash()
	lap("open, unclean")
	if st := b.Stats(); st.Blocks != int64(n) || st.PinnedBytes != int64(n/2*32) {
		t.Errorf("stats: %+v", st)
	}
	got, err := b.GC(t.Context())
	must(t, err)
	lap("collect half")
	if got.Blocks != int64(n/2) {
		t.Errorf("collected %d blocks", got.Blocks)
	}
	must(t, b.Unpin(t.Context(), root))
	lap("unpin")
	got, err = b.GC(t.Context())
	must(t, err)
	lap("collect rest")
	if st := b.Stats(); got.Blocks != int64(n/2) || st.Blocks != 0 || st.UsedBytes != 0 || st.PinnedBytes != 0 {
		t.Errorf("collected %d blocks, left %+v", got.Blocks, st)
	}
	if h := heap(); h > 200<<20 {
		t.Errorf("heap of %d MiB", h>>20)
	}
}

// hollow is a folder whose files take bytes and keep none of them.
type hollow struct{ osFiles }

type hollowFile struct{ file }

func (h hollow) Create(name string) (file, error) {
	f, err := h.osFiles.Create(name)
	return hollowFile{f}, err
}

func (h hollow) Open(name string) (file, error) {
	f, err := h.osFiles.Open(name)
	return hollowFile{f}, err
}

// WriteAt only makes the file as long as it would be.
func (f hollowFile) WriteAt(p []byte, off int64) (int, error) {
	size, err := f.Size()
	if end := off + int64(len(p)); err == nil && end > size {
		err = f.Truncate(end)
	}
	return len(p), err
}

// TestManyBodies: 12 GiB pass through a store of 8 GiB, in bodies of 4 MiB. The bytes are not kept.
func TestManyBodies(t *testing.T) {
	const files, quota = 3_000, 8 << 30
	dir := scratch(t)
	o, err := newOSFiles(dir)
	must(t, err)
	db := openDB(t, dir)
	defer func() { must(t, db.Close()) }()
	s, err := OpenStore(StoreConfig{DB: db, files: hollow{o}, QuotaBytes: quota})
	must(t, err)
	begun, before := time.Now(), heap()
	data := make([]byte, MinBodyBytes/4)
	for i := range uint64(files) {
		file := numbered(t, i).Cid()
		var es []Entry
		for j := range uint64(4) {
			sum, err := multihash.Encode(binary.BigEndian.AppendUint64(make([]byte, 24), i<<8|j), multihash.SHA2_256)
			must(t, err)
			es = append(es, Entry{
				Block: withCID(data, cid.NewCidV1(cid.Raw, sum)),
				Place: Place{File: file, Offset: j * MinBodyBytes / 4, FileBytes: MinBodyBytes},
			})
		}
		mustPut(t, s, es...)
	}
	t.Logf("put %.1f s, heap +%d MiB", time.Since(begun).Seconds(), (heap()-before)>>20)
	st := s.Stats()
	if st.UsedBytes > quota || st.Complete < quota/MinBodyBytes*9/10 || st.Evictions == 0 {
		t.Errorf("stats: %+v", st)
	}
	checkFigures(t, s)
	must(t, s.Close())
	begun = time.Now()
	s, err = OpenStore(StoreConfig{DB: db, files: hollow{o}, QuotaBytes: quota, UncleanStop: true})
	must(t, err)
	t.Logf("open, unclean %.1f s", time.Since(begun).Seconds())
	if got := s.Stats(); got.UsedBytes != st.UsedBytes || got.Complete != st.Complete {
		t.Errorf("after opening: %+v", got)
	}
	must(t, s.Close())
}
