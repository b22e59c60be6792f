package seal

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastfs/holdfast/uploader/seal/pb"
)

// unmarshal reads b into m, and returns errors that wrap ErrMalformed.
func unmarshal(b []byte, m proto.Message) error {
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

func decodeRequest(b []byte) (Request, error) {
	var m pb.Request
	if err := unmarshal(b, &m); err != nil {
		return nil, err
	}
	f := &fields{}
	var r Request
	switch k := m.Kind.(type) {
	case *pb.Request_Quote:
		r = &Quote{Now: f.maybe(k.Quote.GetNow())}
	case *pb.Request_Store:
		r = f.storeRequest(k.Store)
	case *pb.Request_OpenChannel:
		r = &OpenChannel{Channel: f.hash(k.OpenChannel.GetChannel())}
	case *pb.Request_Segments:
		r = f.segmentMap(k.Segments)
	case *pb.Request_Data:
		r = &Data{Link: f.link(k.Data.GetLink())}
	case *pb.Request_Signature:
		r = &SignatureRequest{Link: f.link(k.Signature.GetLink())}
	case *pb.Request_Voucher:
		r = &Voucher{Link: f.link(k.Voucher.GetLink()), Voucher: f.atMost("voucher", k.Voucher.GetVoucher(), MaxVoucherBytes)}
	case *pb.Request_Audit:
		r = f.audit(k.Audit)
	case *pb.Request_Renew:
		r = &Renew{Link: f.link(k.Renew.GetLink()), Chunk: f.cid(k.Renew.GetChunk()), Expiry: f.time(k.Renew.GetExpiry()),
			Price: f.price(k.Renew.GetPrice()), Now: f.time(k.Renew.GetNow())}
	case *pb.Request_Release:
		r = &Release{Chunk: f.cid(k.Release.GetChunk())}
	default:
		f.fail("request of an unknown kind")
	}
	if f.err != nil {
		return nil, f.err
	}
	return r, nil
}

func (f *fields) storeRequest(m *pb.Store) *StoreRequest {
	return &StoreRequest{
		Link: f.link(m.GetLink()), Chunk: f.cid(m.GetChunk()),
		Descriptor: f.atMost("descriptor", m.GetDescriptor_(), MaxDescriptorBytes), Bytes: f.bytes(m.GetBytes()),
		Price: f.price(m.GetPrice()), Expiry: f.time(m.GetExpiry()), Now: f.time(m.GetNow()),
	}
}

func (f *fields) segmentMap(m *pb.SegmentMap) *Segments {
	s := &Segments{Link: f.link(m.GetLink()), Key: Key(f.hash(m.GetKey())), Root: f.hash(m.GetRoot())}
	s.Map = Map{Bytes: f.bytes(m.GetBytes()), Segments: f.hashes("segment map", m.GetSegments(), MaxSegments)}
	if f.err == nil {
		if err := s.Map.Check(); err != nil {
			f.fail("%v", err)
		}
	}
	return s
}

func (f *fields) audit(m *pb.Audit) *Audit {
	a := &Audit{Chunk: f.cid(m.GetChunk()), Nonce: f.nonce(m.GetNonce()), Segments: m.GetSegments()}
	if n := len(a.Segments); n < 1 || n > MaxAuditSegments {
		f.fail("audit of %d segments", n)
	}
	for _, i := range a.Segments {
		if i >= MaxSegments {
			f.fail("audit of segment %d", i)
		}
	}
	return a
}

func (m *QuoteAnswer) decode(b []byte) error {
	var p pb.QuoteAnswer
	if err := unmarshal(b, &p); err != nil {
		return err
	}
	f := &fields{}
	*m = QuoteAnswer{Refusal: f.refusal(p.Refusal), FreeBytes: p.FreeBytes, PricePerGiBDay: f.price(p.PricePerGibDay),
		MaxExpiry: f.maybe(p.MaxExpiry), Region: printing(p.Region), Now: f.maybe(p.Now)}
	if len(p.Region) > MaxRegionBytes {
		f.fail("region of %d bytes", len(p.Region))
	}
	return f.err
}

// maxDeadline is the longest deadline that makes sense to anyone, in seconds.
const maxDeadline = 366 * 24 * 60 * 60

func (m *StoreAnswer) decode(b []byte) error {
	var p pb.StoreAnswer
	if err := unmarshal(b, &p); err != nil {
		return err
	}
	f := &fields{}
	if p.DeadlineSeconds > maxDeadline {
		f.fail("deadline in %d seconds", p.DeadlineSeconds)
	}
	*m = StoreAnswer{Refusal: f.refusal(p.Refusal), Deadline: time.Duration(p.DeadlineSeconds%(maxDeadline+1)) * time.Second,
		Have: f.bitmap(p.Have), Stored: p.Stored}
	return f.err
}

func (m *BasicAnswer) decode(b []byte) error {
	var p pb.Answer
	if err := unmarshal(b, &p); err != nil {
		return err
	}
	f := &fields{}
	*m = BasicAnswer{Refusal: f.refusal(p.Refusal)}
	return f.err
}

func (m *SegmentsAnswer) decode(b []byte) error {
	var p pb.SegmentsAnswer
	if err := unmarshal(b, &p); err != nil {
		return err
	}
	f := &fields{}
	*m = SegmentsAnswer{Refusal: f.refusal(p.Refusal), Missing: f.bitmap(p.Missing)}
	return f.err
}

func (m *DataAnswer) decode(b []byte) error {
	var p pb.DataAnswer
	if err := unmarshal(b, &p); err != nil {
		return err
	}
	f := &fields{}
	*m = DataAnswer{Refusal: f.refusal(p.Refusal), Missing: f.bitmap(p.Missing)}
	return f.err
}

func (m *SignatureAnswer) decode(b []byte) error {
	var p pb.SignatureAnswer
	if err := unmarshal(b, &p); err != nil {
		return err
	}
	f := &fields{}
	*m = SignatureAnswer{Refusal: f.refusal(p.Refusal)}
	if m.Refusal != nil || f.err != nil {
		return f.err
	}
	var err error
	if p.Pledge == nil {
		return fmt.Errorf("answer without a pledge: %w", ErrMalformed)
	}
	m.Pledge, err = pledgeOf(p.Pledge)
	return err
}

func (m *AuditAnswer) decode(b []byte) error {
	if err := countFields(b, 3, MaxAuditSegments); err != nil {
		return err
	}
	var p pb.AuditAnswer
	if err := unmarshal(b, &p); err != nil {
		return err
	}
	f := &fields{}
	*m = AuditAnswer{Refusal: f.refusal(p.Refusal)}
	if m.Refusal == nil {
		m.Nonce = f.nonce(p.Nonce)
	}
	for _, s := range p.Segments {
		m.Segments = append(m.Segments, Proven{
			Bytes: f.atMost("segment", s.GetBytes(), SegmentBytes), Proof: f.hashes("proof", s.GetProof(), maxProof),
		})
	}
	return f.err
}

// maxProof is the longest proof's length: 2^7 segments.
const maxProof = 7

// countFields fails if a field occurs more often than most, before memory is taken for each.
func countFields(b []byte, field protowire.Number, most int) error {
	n := 0
	for len(b) > 0 {
		num, _, size := protowire.ConsumeField(b)
		if size < 0 {
			return fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(size))
		}
		if num == field {
			n++
		}
		if n > most {
			return fmt.Errorf("more than %d of field %d: %w", most, field, ErrMalformed)
		}
		b = b[size:]
	}
	return nil
}
