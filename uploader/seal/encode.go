package seal

import (
	"time"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastfs/holdfast/uploader/seal/pb"
)

// unix is zero for the zero time, which stands for one that is left out.
func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func cidBytes(c cid.Cid) []byte {
	if !c.Defined() {
		return nil
	}
	return c.Bytes()
}

func marshal(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

func (m *Quote) encode() ([]byte, error) {
	return marshal(&pb.Request{Kind: &pb.Request_Quote{Quote: &pb.Quote{Now: unix(m.Now)}}})
}

func (m *StoreRequest) encode() ([]byte, error) {
	return marshal(&pb.Request{Kind: &pb.Request_Store{Store: &pb.Store{
		Link: m.Link[:], Chunk: cidBytes(m.Chunk), Descriptor_: m.Descriptor, Bytes: uint64(m.Bytes), Price: m.Price,
		Expiry: unix(m.Expiry), Now: unix(m.Now),
	}}})
}

func (m *OpenChannel) encode() ([]byte, error) {
	return marshal(&pb.Request{Kind: &pb.Request_OpenChannel{OpenChannel: &pb.OpenChannel{Channel: m.Channel[:]}}})
}

func (m *Segments) encode() ([]byte, error) {
	return marshal(&pb.Request{Kind: &pb.Request_Segments{Segments: &pb.SegmentMap{
		Link: m.Link[:], Key: m.Key[:], Root: m.Root[:], Bytes: uint64(m.Map.Bytes), Segments: joinHashes(m.Map.Segments),
	}}})
}

func (m *Data) encode() ([]byte, error) {
	return marshal(&pb.Request{Kind: &pb.Request_Data{Data: &pb.Data{Link: m.Link[:]}}})
}

func (m *SignatureRequest) encode() ([]byte, error) {
	return marshal(&pb.Request{Kind: &pb.Request_Signature{Signature: &pb.Signature{Link: m.Link[:]}}})
}

func (m *Voucher) encode() ([]byte, error) {
	return marshal(&pb.Request{Kind: &pb.Request_Voucher{Voucher: &pb.Voucher{Link: m.Link[:], Voucher: m.Voucher}}})
}

func (m *Audit) encode() ([]byte, error) {
	return marshal(&pb.Request{Kind: &pb.Request_Audit{Audit: &pb.Audit{
		Chunk: cidBytes(m.Chunk), Segments: m.Segments, Nonce: m.Nonce[:],
	}}})
}

func (m *Renew) encode() ([]byte, error) {
	return marshal(&pb.Request{Kind: &pb.Request_Renew{Renew: &pb.Renew{
		Link: m.Link[:], Chunk: cidBytes(m.Chunk), Expiry: unix(m.Expiry), Price: m.Price, Now: unix(m.Now),
	}}})
}

func (m *Release) encode() ([]byte, error) {
	return marshal(&pb.Request{Kind: &pb.Request_Release{Release: &pb.Release{Chunk: cidBytes(m.Chunk)}}})
}

func (m *QuoteAnswer) encode() ([]byte, error) {
	return marshal(&pb.QuoteAnswer{Refusal: m.Refusal.toPB(), FreeBytes: m.FreeBytes, PricePerGibDay: m.PricePerGiBDay,
		MaxExpiry: unix(m.MaxExpiry), Region: cut(printing(m.Region), MaxRegionBytes), Now: unix(m.Now)})
}

func (m *StoreAnswer) encode() ([]byte, error) {
	return marshal(&pb.StoreAnswer{Refusal: m.Refusal.toPB(), DeadlineSeconds: uint64(max(0, m.Deadline) / time.Second),
		Have: m.Have[:], Stored: m.Stored})
}

func (m *BasicAnswer) encode() ([]byte, error) {
	return marshal(&pb.Answer{Refusal: m.Refusal.toPB()})
}

func (m *SegmentsAnswer) encode() ([]byte, error) {
	return marshal(&pb.SegmentsAnswer{Refusal: m.Refusal.toPB(), Missing: m.Missing[:]})
}

func (m *DataAnswer) encode() ([]byte, error) {
	return marshal(&pb.DataAnswer{Refusal: m.Refusal.toPB(), Missing: m.Missing[:]})
}

func (m *SignatureAnswer) encode() ([]byte, error) {
	a := &pb.SignatureAnswer{Refusal: m.Refusal.toPB()}
	if m.Refusal == nil {
		a.Pledge = m.Pledge.toPB()
	}
	return marshal(a)
}

func (m *AuditAnswer) encode() ([]byte, error) {
	a := &pb.AuditAnswer{Refusal: m.Refusal.toPB(), Nonce: m.Nonce[:]}
	for _, s := range m.Segments {
		a.Segments = append(a.Segments, &pb.Proven{Bytes: s.Bytes, Proof: joinHashes(s.Proof)})
	}
	return marshal(a)
}
