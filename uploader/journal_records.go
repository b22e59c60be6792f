package uploader

import (
	"bytes"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastfs/holdfast/uploader/pb"
)

func (r *fileRecord) toPB() *pb.File {
	m := &pb.File{
		Name: r.Name, Redundancy: uint32(r.Policy.Redundancy), Lifetime: int64(r.Policy.Lifetime / time.Second),
		AutoRenew: r.Policy.AutoRenew, Expiry: r.Expiry, Cancelled: r.Cancelled,
	}
	for i := range r.Groups {
		m.Groups = append(m.Groups, r.Groups[i][:])
	}
	return m
}

func parseFile(id, value []byte) (r fileRecord, err error) {
	var m pb.File
	if err := proto.Unmarshal(value, &m); err != nil {
		return r, fmt.Errorf("%w: %w", errJournal, err)
	}
	if len(id) != len(r.ID) {
		return r, fmt.Errorf("file ID of %d bytes: %w", len(id), errJournal)
	}
	r = fileRecord{ID: FileID(id), Name: m.Name, Expiry: m.Expiry, Cancelled: m.Cancelled, Policy: Policy{
		Redundancy: int(m.Redundancy), Lifetime: time.Duration(m.Lifetime) * time.Second, AutoRenew: m.AutoRenew,
	}}
	for _, g := range m.Groups {
		if len(g) != len(GroupID{}) {
			return r, fmt.Errorf("group ID of %d bytes: %w", len(g), errJournal)
		}
		r.Groups = append(r.Groups, GroupID(g))
	}
	return r, nil
}

func (r *groupRecord) toPB() *pb.Group {
	m := &pb.Group{Copies: uint32(r.Copies), Parity: uint32(r.Parity), Data: uint32(r.Code.Data), Stripes: r.Code.Stripes}
	for _, c := range r.Chunks {
		m.Chunks = append(m.Chunks, c.Bytes())
	}
	return m
}

func parseGroup(id, value []byte) (r groupRecord, err error) {
	var m pb.Group
	if err := proto.Unmarshal(value, &m); err != nil {
		return r, fmt.Errorf("%w: %w", errJournal, err)
	}
	if len(id) != len(r.ID) {
		return r, fmt.Errorf("group ID of %d bytes: %w", len(id), errJournal)
	}
	r = groupRecord{ID: GroupID(id), Copies: int(m.Copies), Parity: int(m.Parity), Code: code{Data: int(m.Data), Stripes: m.Stripes}}
	for _, b := range m.Chunks {
		c, err := cid.Cast(b)
		if err != nil {
			return r, fmt.Errorf("%w: %w", errJournal, err)
		}
		r.Chunks = append(r.Chunks, c)
	}
	return r, nil
}

func (r *chunkRecord) toPB() *pb.Chunk { return &pb.Chunk{Bytes: uint64(r.Bytes)} }

func parseChunk(id, value []byte) (r chunkRecord, err error) {
	var m pb.Chunk
	if err := proto.Unmarshal(value, &m); err != nil {
		return r, fmt.Errorf("%w: %w", errJournal, err)
	}
	c, err := cid.Cast(bytes.Clone(id))
	if err != nil {
		return r, fmt.Errorf("%w: %w", errJournal, err)
	}
	return chunkRecord{ID: c, Bytes: int64(m.Bytes)}, nil
}

func (r *record) toPB() *pb.Link {
	m := &pb.Link{
		Chunk: r.Chunk.Bytes(), Provider: []byte(r.Provider), State: uint32(r.State), Bytes: uint64(r.Bytes),
		Price: r.Price, Expiry: r.Expiry, Created: r.Created, Order: r.Order, Pledge: r.Pledge, Paid: r.Paid,
		Voucher: r.Voucher, Delivered: r.Delivered, Reason: r.Reason, Cause: r.Cause, Release: r.Release,
		Proved: r.Proved,
	}
	if r.Root != [32]byte{} {
		m.Root = r.Root[:]
	}
	if r.renewal() {
		m.Renews = r.Renews[:]
	}
	return m
}

func parseLink(id, value []byte) (r record, err error) {
	var m pb.Link
	if err := proto.Unmarshal(value, &m); err != nil {
		return r, fmt.Errorf("%w: %w", errJournal, err)
	}
	c, err := cid.Cast(m.Chunk)
	if err != nil {
		return r, fmt.Errorf("%w: %w", errJournal, err)
	}
	ok := len(id) == len(r.ID) && len(m.Provider) > 0 && m.State >= uint32(LinkCreated) && m.State <= uint32(LinkFailed) &&
		(len(m.Root) == 0 || len(m.Root) == len(r.Root)) && (len(m.Renews) == 0 || len(m.Renews) == len(r.Renews))
	if !ok {
		return r, fmt.Errorf("link %x in state %d: %w", id, m.State, errJournal)
	}
	r = record{
		Chunk: c, Provider: peer.ID(m.Provider), State: LinkState(m.State), Bytes: int64(m.Bytes), Price: m.Price,
		Expiry: m.Expiry, Created: m.Created, Order: m.Order, Pledge: m.Pledge, Paid: m.Paid, Voucher: m.Voucher,
		Delivered: m.Delivered, Reason: m.Reason, Cause: m.Cause, Release: m.Release, Proved: m.Proved,
	}
	copy(r.ID[:], id)
	copy(r.Root[:], m.Root)
	copy(r.Renews[:], m.Renews)
	return r, nil
}
