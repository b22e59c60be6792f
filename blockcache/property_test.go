package blockcache

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
)

// TestAgainstMap runs random operations on a store and on a map, which must always agree. Stops,
// clean and unclean, come in between.
func TestAgainstMap(t *testing.T) {
	for seed := range seeds(3) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			p := &property{t: t, r: rand.New(rand.NewPCG(seed, 7)), here: map[cid.Cid]Entry{}}
			p.box = newBox(t, StoreConfig{PackBytes: 256 << 10, OpenFiles: 2})
			for i := range uint64(3) {
				f := makeFile(t, seed*10+i, 4<<20+int(i)*1000, 512<<10)
				p.pool = append(p.pool, f.leaves...)
			}
			for i := range uint64(60) {
				e := Entry{Block: randBlock(t, 1000+i, 1+p.r.IntN(1<<(1+p.r.IntN(17))))}
				if i%5 == 0 { // a place that is not to be believed
					e.Place = Place{File: p.pool[0].Place.File, Offset: p.r.Uint64N(6 << 20), FileBytes: 4 << 20}
				}
				p.pool = append(p.pool, e)
			}
			for range 250 {
				p.step()
			}
			p.compare()
		})
	}
}

type property struct {
	t    *testing.T
	r    *rand.Rand
	box  *box
	pool []Entry
	here map[cid.Cid]Entry
	pins []cid.Cid
}

func (p *property) some() []Entry {
	n := 1 + p.r.IntN(8)
	es := make([]Entry, n)
	for i := range es {
		es[i] = p.pool[p.r.IntN(len(p.pool))]
		if p.r.IntN(4) == 0 {
			es[i].Place = Place{}
		}
	}
	return es
}

func (p *property) step() {
	t, s := p.t, p.box.Store
	switch n := p.r.IntN(100); {
	case n < 45:
		es := p.some()
		mustPut(t, s, es...)
		for _, e := range es {
			p.here[e.Block.Cid()] = e
		}
	case n < 65:
		for _, e := range p.some() {
			_, err := s.Get(t.Context(), wantOf(e))
			if _, ok := p.here[e.Block.Cid()]; ok != (err == nil) || err != nil && !errors.Is(err, ErrNotFound) {
				t.Fatalf("get: %v, in the map: %v", err, ok)
			}
		}
	case n < 80:
		for _, e := range p.some() {
			must(t, s.Delete(t.Context(), []cid.Cid{e.Block.Cid()}))
			delete(p.here, e.Block.Cid())
		}
	case n < 84:
		p.pin()
	case n < 86 && len(p.pins) > 0:
		i := p.r.IntN(len(p.pins))
		must(t, s.Unpin(t.Context(), p.pins[i]))
		p.pins = slices.Delete(p.pins, i, i+1)
	case n < 91:
		must(t, s.rewriteAny(p.r))
	case n < 93:
		must(t, s.Sync(t.Context()))
	case n < 95:
		s.maintain(t.Context())
	case n < 97:
		p.compare()
		p.box.reopen()
		p.compare()
	case n < 98:
		p.crash()
	default:
		p.compare()
	}
}

func (p *property) pin() {
	root := randBlock(p.t, p.r.Uint64(), 8).Cid()
	for range 2 {
		var cs []cid.Cid
		for _, e := range p.some() {
			cs = append(cs, e.Block.Cid())
		}
		must(p.t, p.box.Pin(p.t.Context(), root, cs))
	}
	p.pins = append(p.pins, root)
}

// crash loses nothing, as the database and the files stay; but blocks deleted since the last sync
// may be found again in packs.
func (p *property) crash() {
	must(p.t, p.box.Sync(p.t.Context()))
	p.box.crash()
	p.compare()
}

func (p *property) compare() {
	p.t.Helper()
	s := p.box.Store
	for _, e := range p.pool {
		ok, err := s.Has(p.t.Context(), e.Block.Cid())
		must(p.t, err)
		if _, want := p.here[e.Block.Cid()]; ok != want {
			p.t.Fatalf("has %v, in the map: %v", ok, want)
		}
	}
	for _, e := range p.here {
		mustGet(p.t, s, e.Block)
	}
	if n := s.Stats().Blocks; n != int64(len(p.here)) {
		p.t.Fatalf("%d blocks, %d in the map", n, len(p.here))
	}
	pins, err := s.Pins(p.t.Context())
	must(p.t, err)
	roots := map[cid.Cid]bool{}
	for _, pin := range pins {
		roots[pin.Root] = true
	}
	want := map[cid.Cid]bool{}
	for _, r := range p.pins {
		want[r] = true
	}
	if !maps.Equal(roots, want) {
		p.t.Fatalf("%d pins, want %d", len(roots), len(want))
	}
	checkFigures(p.t, s)
}
