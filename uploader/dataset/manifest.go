package dataset

import (
	"bytes"
	"context"
	"fmt"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/erasure"
)

// manifestRecord is a manifest that was written.
type manifestRecord struct {
	Manifest
	given bool // the Sink knows it and its parts
}

func (r manifestRecord) encode() []byte {
	var e encoder
	e.num(uint64(r.ID))
	e.cid(r.CID)
	e.cid(r.Root)
	given := uint64(0)
	if r.given {
		given = 1
	}
	e.num(given)
	return e
}

// manifest reads keyLatest or keyPlaced; the zero record if there is none.
func (x *tx) manifest(kind byte) (r manifestRecord, err error) {
	v, err := x.get(x.d.key(kind))
	if v == nil || err != nil {
		return r, err
	}
	d := decoder{rest: v}
	r.ID, r.CID, r.Root, r.given = ManifestID(d.num()), d.cid(), d.cid(), d.num() == 1
	return r, d.end("manifest")
}

func (x *tx) latest() (manifestRecord, error) { return x.manifest(keyLatest) }

func (d *Dataset) manifests() (latest, placed manifestRecord, err error) {
	err = d.view(func(x *tx) (err error) {
		if latest, err = x.latest(); err == nil {
			placed, err = x.manifest(keyPlaced)
		}
		return err
	})
	return latest, placed, err
}

// partRecord is a part of the manifests that count: the latest and the one placed last.
type partRecord struct {
	last   uint64 // manifest that has it, the latest of them
	placed bool   // the one placed last has it
	given  bool   // the Sink knows it
}

func (p partRecord) encode() []byte {
	var e encoder
	e.num(p.last)
	bits := uint64(0)
	if p.placed {
		bits |= 1
	}
	if p.given {
		bits |= 2
	}
	e.num(bits)
	return e
}

func decodePart(v []byte) (partRecord, error) {
	d := decoder{rest: v}
	p := partRecord{last: d.num()}
	bits := d.num()
	p.placed, p.given = bits&1 != 0, bits&2 != 0
	return p, d.end("part")
}

func manifestMark(id ManifestID) Mark { return Mark(fmt.Sprintf("manifest-%d", id)) }

// writeManifest writes the manifest of what is now, if it differs from the latest. While that is on its way there is
// no other, so that one arrives however often something changes; unless it cannot arrive any more.
func (d *Dataset) writeManifest(ctx context.Context) error {
	latest, placed, err := d.manifests()
	if err != nil {
		return err
	}
	var changed, broken []byte
	var root dirRecord
	err = d.view(func(x *tx) (err error) {
		if changed, err = x.get(d.key(keyChanged)); err != nil {
			return err
		}
		if broken, err = x.get(d.key(keyBroken)); err != nil {
			return err
		}
		root, _, err = x.dir(rootDir)
		return err
	})
	if err != nil || changed == nil && broken == nil || latest.ID != placed.ID && broken == nil {
		return err
	}
	var id ManifestID
	err = d.commit(func(x *tx) error {
		n, err := x.next()
		if err != nil {
			return err
		}
		id = ManifestID(n)
		var e encoder
		e.num(n)
		e.num(uint64(latest.ID))
		return x.set(d.key(keyWriting), e)
	})
	if err != nil {
		return err
	}
	c, err := d.writeParts(ctx, id, root.link.CID)
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	err = d.commit(func(x *tx) error {
		for _, kind := range []byte{keyChanged, keyBroken} {
			if err := x.del(d.key(kind)); err != nil {
				return err
			}
		}
		return x.set(d.key(keyLatest), manifestRecord{Manifest: Manifest{id, c, root.link.CID}}.encode())
	})
	if err != nil {
		return err
	}
	return d.finishManifest(ctx)
}

// writeParts writes the manifest of all groups with live blocks, in the order of their IDs.
func (d *Dataset) writeParts(ctx context.Context, id ManifestID, root cid.Cid) (cid.Cid, error) {
	w, err := erasure.NewManifestWriter(root, d.cfg.Data, d.cfg.Parity, func(p erasure.Part) error {
		if p.Kind == erasure.PartDescriptor {
			return nil
		}
		return d.writePart(ctx, id, p)
	})
	if err != nil {
		return cid.Undef, err
	}
	err = d.scan(d.key(keyGroup), func(rest, value []byte) error {
		h, err := decodeHead(value)
		if err != nil || h.liveBlocks == 0 {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		g, err := d.group(GroupID(number(rest, 0)))
		if err != nil {
			return err
		}
		return w.AddGroup(g)
	})
	if err != nil {
		return cid.Undef, err
	}
	return w.Close()
}

func (d *Dataset) writePart(ctx context.Context, id ManifestID, p erasure.Part) error {
	b, err := blocks.NewBlockWithCid(p.Data, p.CID)
	if err != nil {
		return err
	}
	if err := d.cfg.Store.Put(ctx, manifestMark(id), []blocks.Block{b}); err != nil {
		return err
	}
	return d.commit(func(x *tx) error {
		key := d.digestKey(keyPart, digestOf(p.CID))
		v, err := x.get(key)
		if err != nil {
			return err
		}
		var r partRecord
		if v != nil {
			if r, err = decodePart(v); err != nil {
				return err
			}
		}
		r.last = uint64(id)
		return x.set(key, r.encode())
	})
}

// finishManifest drops what a manifest superseded; at a start also what one left that was not written to its end.
func (d *Dataset) finishManifest(ctx context.Context) error {
	var writing []byte
	err := d.view(func(x *tx) (err error) {
		writing, err = x.get(d.key(keyWriting))
		return err
	})
	if err != nil || writing == nil {
		return err
	}
	r := decoder{rest: writing}
	id, before := ManifestID(r.num()), ManifestID(r.num())
	if err := r.end("manifest being written"); err != nil {
		return err
	}
	latest, placed, err := d.manifests()
	if err != nil {
		return err
	}
	switch {
	case latest.ID != id:
		err = d.cfg.Store.Release(ctx, manifestMark(id))
	case before != 0 && before != placed.ID:
		err = d.cfg.Store.Release(ctx, manifestMark(before))
	}
	if err == nil {
		err = d.dropParts(ctx, func(p partRecord) bool { return p.last == uint64(latest.ID) || p.placed })
	}
	if err != nil {
		return err
	}
	return d.commit(func(x *tx) error { return x.del(d.key(keyWriting)) })
}

// dropParts releases the parts that are not to be kept.
func (d *Dataset) dropParts(ctx context.Context, keep func(partRecord) bool) error {
	var drop []cid.Cid
	flush := func() error {
		if len(drop) == 0 {
			return nil
		}
		if err := d.cfg.Flush(ctx); err != nil {
			return err
		}
		if err := d.cfg.Sink.PartsReleased(ctx, drop); err != nil {
			return fmt.Errorf("release parts of manifests: %w", err)
		}
		err := d.commit(func(x *tx) error {
			for _, c := range drop {
				if err := x.del(d.digestKey(keyPart, digestOf(c))); err != nil {
					return err
				}
			}
			return nil
		})
		drop = nil
		return err
	}
	err := d.scan(d.key(keyPart), func(rest, value []byte) error {
		p, err := decodePart(value)
		if err != nil || keep(p) {
			return err
		}
		if drop = append(drop, makeCID(cid.DagCBOR, digest(rest))); len(drop) < pieceBlocks {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// giveManifest tells the Sink of the latest manifest.
func (d *Dataset) giveManifest(ctx context.Context) error {
	latest, placed, err := d.manifests()
	if err != nil || latest.ID == 0 || latest.given || latest.ID == placed.ID {
		return err
	}
	if broken, err := d.first(d.key(keyBroken)); err != nil || broken != nil {
		return err
	}
	if err := d.cfg.Flush(ctx); err != nil {
		return err
	}
	err = d.scan(d.key(keyPart), func(rest, value []byte) error {
		p, err := decodePart(value)
		if err != nil || p.given || p.last != uint64(latest.ID) {
			return err
		}
		c, key := makeCID(cid.DagCBOR, digest(rest)), append(d.key(keyPart), bytes.Clone(rest)...)
		data, err := d.cfg.Store.Get(ctx, c)
		if err != nil {
			return fmt.Errorf("read part of manifest: %w", err)
		}
		kind := erasure.PartPage
		if c == latest.CID {
			kind = erasure.PartManifest
		}
		if err := d.cfg.Sink.Part(ctx, latest.ID, erasure.Part{Kind: kind, CID: c, Data: bytes.Clone(data)}); err != nil {
			return fmt.Errorf("give part of manifest: %w", err)
		}
		p.given = true
		return d.commit(func(x *tx) error { return x.set(key, p.encode()) })
	})
	if err != nil {
		return err
	}
	if err := d.cfg.Sink.Manifest(ctx, latest.Manifest); err != nil {
		return fmt.Errorf("give manifest: %w", err)
	}
	latest.given = true
	return d.commit(func(x *tx) error { return x.set(d.key(keyLatest), latest.encode()) })
}

// giveAgain has the Sink told again of all that is not placed.
func (d *Dataset) giveAgain() error {
	latest, placed, err := d.manifests()
	if err != nil || latest.ID == placed.ID {
		return err
	}
	err = d.scan(d.key(keyPart), func(rest, value []byte) error {
		p, err := decodePart(value)
		if err != nil || !p.given || p.placed {
			return err
		}
		p.given = false
		key := append(d.key(keyPart), bytes.Clone(rest)...)
		return d.commit(func(x *tx) error { return x.set(key, p.encode()) })
	})
	if err != nil {
		return err
	}
	latest.given = false
	return d.commit(func(x *tx) error { return x.set(d.key(keyLatest), latest.encode()) })
}

// applyManifestPlaced takes that the latest manifest is placed; one that was superseded no longer counts.
func (d *Dataset) applyManifestPlaced(id ManifestID) error {
	ctx := context.Background()
	latest, placed, err := d.manifests()
	if err != nil || latest.ID != id {
		return err
	}
	if waits, err := d.awaits(id); err != nil || waits {
		return err
	}
	if placed.ID != id && placed.ID != 0 {
		if err := d.cfg.Store.Release(ctx, manifestMark(placed.ID)); err != nil {
			return err
		}
	}
	err = d.dropParts(ctx, func(p partRecord) bool { return p.last == uint64(id) })
	if err != nil {
		return err
	}
	err = d.scan(d.key(keyPart), func(rest, value []byte) error {
		p, err := decodePart(value)
		if err != nil || p.placed {
			return err
		}
		p.placed = true
		key := append(d.key(keyPart), bytes.Clone(rest)...)
		return d.commit(func(x *tx) error { return x.set(key, p.encode()) })
	})
	if err != nil {
		return err
	}
	return d.commit(func(x *tx) error { return x.set(d.key(keyPlaced), latest.encode()) })
}
