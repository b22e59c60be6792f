package node

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader"
)

// place has the dataset of a manifest, all of which is here, kept by providers: its groups, and the manifest itself in
// m+1 copies.
func (n *Node) place(ctx context.Context, c cid.Cid, name string, policy uploader.Policy) error {
	m, err := erasure.OpenManifest(ctx, c, n.localPart)
	if err != nil {
		return err
	}
	data, parity := m.Code()
	f := uploader.File{ID: uploadOf(c), Name: name, Policy: policy}
	for g, err := range m.Groups(ctx) {
		if err != nil {
			return err
		}
		group := uploader.Group{Parity: parity, Data: data}
		for _, s := range g.Stripes {
			group.Stripes = append(group.Stripes, len(s.Data))
		}
		for _, column := range g.Columns() {
			if group.Columns, err = appendColumn(group.Columns, column); err != nil {
				return err
			}
		}
		f.Groups = append(f.Groups, group)
	}
	parts, err := n.manifestChunks(ctx, m)
	if err != nil {
		return err
	}
	for _, part := range parts {
		columns, err := appendColumn(nil, part)
		if err != nil {
			return err
		}
		f.Groups = append(f.Groups, uploader.Group{Columns: columns, Copies: parity + 1})
	}
	return n.uploader.Put(ctx, f)
}

// uploadOf names the upload of a manifest.
func uploadOf(c cid.Cid) (id uploader.FileID) {
	sum := sha256.Sum256(c.Bytes())
	copy(id[:], sum[:])
	return id
}

func appendColumn(columns []uploader.Column, c erasure.Chunk) ([]uploader.Column, error) {
	id, descriptor, err := c.Encode()
	if err != nil {
		return nil, err
	}
	return append(columns, uploader.Column{Chunk: id, Descriptor: descriptor}), nil
}

// manifestChunks puts a manifest and its parts into chunks of their own.
func (n *Node) manifestChunks(ctx context.Context, m *erasure.Manifest) (chunks []erasure.Chunk, err error) {
	var chunk erasure.Chunk
	add := func(c cid.Cid) error {
		size, err := n.store.SizeOf(ctx, c)
		if err != nil {
			return fmt.Errorf("part of manifest %s: %w", m.CID(), err)
		}
		if len(chunk) >= maxChunkParts || chunk.Bytes()+int64(size) > erasure.MaxChunk {
			chunks, chunk = append(chunks, chunk), nil
		}
		chunk = append(chunk, erasure.Shard{CID: c, Bytes: size})
		return nil
	}
	if err := add(m.CID()); err != nil {
		return nil, err
	}
	for part, err := range m.Parts(ctx) {
		if err != nil || part.Equals(m.CID()) {
			if err != nil {
				return nil, err
			}
			continue
		}
		if err := add(part); err != nil {
			return nil, err
		}
	}
	return append(chunks, chunk), nil
}

// maxChunkParts keeps a chunk's descriptor well below what it may be.
const maxChunkParts = 4096

// Links lists storage links.
func (n *Node) Links(ctx context.Context) ([]api.Link, error) {
	all, err := n.uploader.Links(ctx)
	if err != nil {
		return nil, answer(err)
	}
	out := []api.Link{}
	for _, l := range all {
		out = append(out, api.Link{ID: l.ID.String(), Chunk: l.Chunk.String(), Provider: l.Provider.String(), State: l.State.String(),
			Bytes: l.Bytes, Price: l.Price, Paid: l.Paid, Expiry: l.Expiry, Reason: l.Reason})
	}
	return out, nil
}

// Providers lists storage providers.
func (n *Node) Providers(ctx context.Context) ([]api.Provider, error) {
	all, err := n.uploader.ProviderList(ctx)
	if err != nil {
		return nil, answer(err)
	}
	out := []api.Provider{}
	for _, p := range all {
		out = append(out, api.Provider{ID: p.ID.String(), FreeBytes: p.FreeBytes, Price: p.PricePerGiBDay, Region: p.Region, Known: p.Quoted,
			Fits: p.Fits, Trouble: p.Trouble, Links: p.Links, Bytes: p.Bytes, Networks: p.Networks})
	}
	return out, nil
}
