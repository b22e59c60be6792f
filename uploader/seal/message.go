package seal

import (
	"encoding/hex"
	"time"

	"github.com/ipfs/go-cid"
)

// ProtocolID is the protocol that these messages are spoken over.
const ProtocolID = "/holdfast/storage/1.0.0"

// Limits of messages, beside those of chunks.
const (
	MaxDescriptorBytes = 1 << 20
	MaxRegionBytes     = 32
	MaxVoucherBytes    = 256
	MaxAuditSegments   = 16
)

// MaxClockSkew is how far the clocks of both ends may differ.
const MaxClockSkew = 10 * time.Minute

// LinkID names a storage link; it is the writer's and random. Other writers may use the same.
type LinkID [16]byte

// String returns the ID in hexadecimal digits.
func (id LinkID) String() string { return hex.EncodeToString(id[:]) }

// Nonce is random and makes two audits differ.
type Nonce [16]byte

// Message is a request or an answer: a pointer to one of this package's message types.
type Message interface {
	encode() ([]byte, error)
	limit() int // bytes
}

// Request is what a writer sends.
type Request interface {
	Message
	request()
}

// Answer is what a provider sends.
type Answer interface {
	Message
	decode(b []byte) error
	// Refused returns the refusal, or nil where the request was granted. It is nil, not a nil *Refusal.
	Refused() error
}

// Quote asks for the terms. A zero Now is not compared with the provider's clock.
type Quote struct{ Now time.Time }

// QuoteAnswer tells the terms.
type QuoteAnswer struct {
	Refusal        *Refusal
	FreeBytes      uint64
	PricePerGiBDay uint64
	MaxExpiry      time.Time // latest expiry that is accepted now
	Region         string    // a label, at most 32 bytes of UTF-8
	Now            time.Time // the provider's clock
}

// StoreRequest asks a provider to keep a chunk, and to reserve space for it.
type StoreRequest struct {
	Link       LinkID
	Chunk      cid.Cid
	Descriptor []byte // hashes to Chunk
	Bytes      int64
	Price      uint64 // for all of the time, at least PriceOf(…, Bytes, Expiry − Now)
	Expiry     time.Time
	Now        time.Time // the writer's clock
}

// StoreAnswer promises space. The same request again tells how far the link has come.
type StoreAnswer struct {
	Refusal  *Refusal
	Deadline time.Duration // from now, in seconds: what is not here by then is forgotten
	Have     Bitmap        // segments that are here
	Stored   bool          // the chunk is here in full: only the signature is missing
}

// OpenChannel tells of a payment channel from the writer to the provider.
type OpenChannel struct{ Channel [32]byte }

// BasicAnswer grants or refuses and says no more.
type BasicAnswer struct{ Refusal *Refusal }

// Segments tells how a chunk is sealed.
type Segments struct {
	Link LinkID
	Key  Key
	Root [32]byte
	Map  Map
}

// SegmentsAnswer tells which segments to send; none is missing where the same sealed chunk is here.
type SegmentsAnswer struct {
	Refusal *Refusal
	Missing Bitmap
}

// Data announces segments of a link; they follow in the same stream.
type Data struct{ Link LinkID }

// DataAnswer tells which segments are still missing. If none is, the chunk was verified and synced.
type DataAnswer struct {
	Refusal *Refusal
	Missing Bitmap
}

// SignatureRequest asks for the pledge of a link.
type SignatureRequest struct{ Link LinkID }

// SignatureAnswer carries a pledge; it is undefined where the request was refused.
type SignatureAnswer struct {
	Refusal *Refusal
	Pledge  Pledge
}

// Voucher pays for a link. The voucher is opaque here: who takes it knows its form.
type Voucher struct {
	Link    LinkID
	Voucher []byte
}

// Audit asks for 1 to [MaxAuditSegments] segments of the writer's sealed chunk.
type Audit struct {
	Chunk    cid.Cid
	Segments []uint32
	Nonce    Nonce
}

// Proven is a segment and the proof that leads to the sealed root.
type Proven struct {
	Bytes []byte
	Proof Proof
}

// AuditAnswer has the segments in the order asked for.
type AuditAnswer struct {
	Refusal  *Refusal
	Nonce    Nonce // the request's
	Segments []Proven
}

// Renew asks to keep a chunk that is pledged to the writer until a later time, under a new link. The
// answer is a SignatureAnswer.
type Renew struct {
	Link   LinkID
	Chunk  cid.Cid
	Expiry time.Time
	Price  uint64 // for the time that is added, see PriceOf
	Now    time.Time
}

// Release ends all of the writer's links of a chunk.
type Release struct{ Chunk cid.Cid }

func (*Quote) request()            {}
func (*StoreRequest) request()     {}
func (*OpenChannel) request()      {}
func (*Segments) request()         {}
func (*Data) request()             {}
func (*SignatureRequest) request() {}
func (*Voucher) request()          {}
func (*Audit) request()            {}
func (*Renew) request()            {}
func (*Release) request()          {}

// Refused returns the refusal or nil.
func (a *QuoteAnswer) Refused() error { return a.Refusal.orNil() }

// Refused returns the refusal or nil.
func (a *StoreAnswer) Refused() error { return a.Refusal.orNil() }

// Refused returns the refusal or nil.
func (a *BasicAnswer) Refused() error { return a.Refusal.orNil() }

// Refused returns the refusal or nil.
func (a *SegmentsAnswer) Refused() error { return a.Refusal.orNil() }

// Refused returns the refusal or nil.
func (a *DataAnswer) Refused() error { return a.Refusal.orNil() }

// Refused returns the refusal or nil.
func (a *SignatureAnswer) Refused() error { return a.Refusal.orNil() }

// Refused returns the refusal or nil.
func (a *AuditAnswer) Refused() error { return a.Refusal.orNil() }

func (r *Refusal) orNil() error {
	if r == nil {
		return nil
	}
	return r
}
