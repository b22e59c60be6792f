package exchange

import (
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// fileLinks reads what fileNode wrote: where each child lies in its file.
func fileLinks(w Want, b blocks.Block) ([]Want, error) {
	links, err := simLinks(Want{}, newBlock(cid.DagCBOR, b.RawData()[8:]))
	if err != nil {
		return nil, err
	}
	file, offset := w.Place.File, w.Place.Offset
	if !file.Defined() {
		file = w.CID
	}
	size := binary.BigEndian.Uint64(b.RawData()) / uint64(len(links))
	for i := range links {
		links[i].Dataset = w.Dataset
		links[i].Place = Place{File: file, Offset: offset + uint64(i)*size, Bytes: size}
	}
	return links, nil
}

// fileNode makes a node of a file whose children have equally many bytes.
func fileNode(size int, children ...blocks.Block) blocks.Block {
	data := binary.BigEndian.AppendUint64(nil, uint64(size))
	return newBlock(cid.DagCBOR, append(data, node(children...).RawData()...))
}

// file makes a file of 10 nodes with 10 leaves of 1,000 bytes each.
func file() (root blocks.Block, leaves, nodes []blocks.Block) {
	for i := range 10 {
		for j := range 10 {
			leaves = append(leaves, leaf(i*10+j, 1000))
		}
		nodes = append(nodes, fileNode(10_000, leaves[i*10:]...))
	}
	return fileNode(100_000, nodes...), leaves, nodes
}

// TestRangesOfAFile: the leaves that hold the range, and the nodes above them, are fetched, and no others.
func TestRangesOfAFile(t *testing.T) {
	for _, c := range []struct {
		offset, length uint64
		first, last    int // leaves
		blocks         uint64
	}{
		{0, 1, 0, 0, 3}, {999, 1, 0, 0, 3}, {999, 2, 0, 1, 4}, {1000, 1000, 1, 1, 3}, {9_500, 1_000, 9, 10, 5}, {15_000, 20_000, 15, 34, 24},
		{99_999, 1, 99, 99, 3}, {99_000, 0, 99, 99, 3}, {0, 100_000, 0, 99, 111}, {0, 0, 0, 99, 111}, {50_000, 1<<64 - 1, 50, 99, 56}, {100_000, 5, 1, 0, 1},
	} {
		simulate(t, Limits{}, func(s *sim) {
			s.Exchange.cfg.Links = fileLinks
			root, leaves, nodes := file()
			s.net.add("p", append(append(nodes, leaves...), root)...).connect()
			d, err := s.Download(s.ctx, Want{CID: root.Cid()}, DownloadOptions{Offset: c.offset, Length: c.length})
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Wait(s.ctx); err != nil {
				t.Fatal(err)
			}
			for i, b := range leaves {
				_, err := s.store.Get(s.ctx, b.Cid())
				if here := err == nil; here != (i >= c.first && i <= c.last) {
					t.Errorf("bytes %d and %d more: leaf %d is here: %v", c.offset, c.length, i, here)
				}
			}
			if p := d.Progress(); p.Blocks != c.blocks || p.FoundBlocks != c.blocks || !p.Done {
				t.Errorf("bytes %d and %d more: %+v", c.offset, c.length, p)
			}
		})
	}
}

// TestPartsAreSharedByThemselves: equal parts of a DAG are one download, others are their own.
func TestPartsAreSharedByThemselves(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		s.Exchange.cfg.Links = fileLinks
		root, leaves, nodes := file()
		p := s.net.add("p", append(append(nodes, leaves...), root)...)
		p.rate = 10 * kib
		p.connect()
		var all []*Download
		for _, o := range []DownloadOptions{
			{}, {}, {Length: 1<<64 - 1}, {RootOnly: true}, {RootOnly: true, Offset: 7}, {Offset: 5000, Length: 10_000}, {Offset: 5000, Length: 10_000},
		} {
			d, err := s.Download(s.ctx, Want{CID: root.Cid()}, o)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, d)
		}
		s.after(time.Millisecond)
		if n := s.Stats().Downloads; n != 3 {
			t.Errorf("%d downloads", n)
		}
		var done sync.WaitGroup
		for _, d := range all[1:] {
			done.Go(func() {
				if err := d.Wait(s.ctx); err != nil {
					t.Error(err)
				}
			})
		}
		all[0].Cancel()
		done.Wait()
		if n := s.sentTwice(); n != 0 {
			t.Errorf("%d blocks were sent twice", n)
		}
		st := s.Stats()
		if st.FirstByte.Count != 3 || st.BlockTime.Count != uint64(len(leaves)+len(nodes)+1) {
			t.Errorf("first bytes %+v, blocks %+v", st.FirstByte, st.BlockTime)
		}
		if b := all[3].Progress(); b.Blocks != 1 {
			t.Errorf("root alone: %+v", b)
		}
	})
}

// TestARangeOfADirectory can't be.
func TestARangeOfADirectory(t *testing.T) {
	simulate(t, Limits{}, func(s *sim) {
		root, all := tree(5, 100, 10)
		s.net.add("p", all...).connect()
		d, err := s.Download(s.ctx, Want{CID: root.Cid()}, DownloadOptions{Offset: 10})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Wait(s.ctx); !errors.Is(err, ErrInvalid) {
			t.Errorf("ended with %v", err)
		}
	})
}
