package seal

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastfs/holdfast/uploader/seal/pb"
)

// Pledge is a provider's word that it keeps a sealed chunk until a time. Times are to the second.
type Pledge struct {
	Chunk      cid.Cid
	SealedRoot [32]byte // [Map.Root]
	Bytes      int64    // of the chunk
	Price      uint64   // for all of the time
	Expiry     time.Time
	Writer     peer.ID
	Provider   peer.ID
	At         time.Time // when it was signed, by the provider's clock
	Signature  []byte    // of the provider
}

const domainPledge = "holdfast/pledge/1\x00"

// MaxPledgeBytes bounds the marshalled form.
const MaxPledgeBytes = 1 << 10

const (
	maxPeerBytes      = 128
	maxCIDBytes       = 128
	maxSignatureBytes = 128
)

// signed is what the provider signs. Variable fields stand behind their lengths.
func (p Pledge) signed() []byte {
	b := make([]byte, 0, 384)
	b = append(b, domainPledge...)
	b = appendBytes(b, p.Chunk.Bytes())
	b = append(b, p.SealedRoot[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(p.Bytes))
	b = binary.BigEndian.AppendUint64(b, p.Price)
	b = binary.BigEndian.AppendUint64(b, uint64(p.Expiry.Unix()))
	b = appendBytes(b, []byte(p.Writer))
	b = appendBytes(b, []byte(p.Provider))
	return binary.BigEndian.AppendUint64(b, uint64(p.At.Unix()))
}

// form returns [ErrMalformed] where a field is out of its bounds, whoever signed.
func (p Pledge) form() error {
	ok := p.Chunk.Defined() && p.Chunk.ByteLen() <= maxCIDBytes &&
		p.Bytes >= 1 && p.Bytes <= MaxChunkBytes && p.Price <= MaxPrice &&
		validTime(p.Expiry) && validTime(p.At) && validPeer(p.Writer) && validPeer(p.Provider)
	if !ok {
		return fmt.Errorf("pledge of %d bytes at price %d until %d: %w", p.Bytes, p.Price, p.Expiry.Unix(), ErrMalformed)
	}
	return nil
}

// Sign signs the pledge with the key of its provider, and fails with [ErrSignature] for another's.
func (p *Pledge) Sign(key crypto.PrivKey) error {
	if err := p.form(); err != nil {
		return fmt.Errorf("sign pledge: %w", err)
	}
	if !p.Provider.MatchesPrivateKey(key) {
		return fmt.Errorf("sign pledge of %s with another's key: %w", p.Provider, ErrSignature)
	}
	sig, err := key.Sign(p.signed())
	if err != nil {
		return fmt.Errorf("sign pledge: %w", err)
	}
	p.Signature = sig
	return nil
}

// Verify returns [ErrSignature] unless the peer named as provider signed all of the other fields. The
// provider's ID must hold its public key.
func (p Pledge) Verify() error {
	if err := p.form(); err != nil {
		return fmt.Errorf("verify %w", err)
	}
	if len(p.Signature) == 0 || len(p.Signature) > maxSignatureBytes {
		return fmt.Errorf("verify pledge: signature of %d bytes: %w", len(p.Signature), ErrSignature)
	}
	key, err := p.Provider.ExtractPublicKey()
	if err != nil {
		return fmt.Errorf("verify pledge of %s: %w: %w", p.Provider, ErrSignature, err)
	}
	if ok, err := key.Verify(p.signed(), p.Signature); err != nil || !ok {
		return fmt.Errorf("verify pledge of %s: %w", p.Provider, ErrSignature)
	}
	return nil
}

// Check verifies p and that it says what was agreed: all fields of want but At and Signature. A pledge
// that says something else is [ErrSignature].
func (p Pledge) Check(want Pledge) error {
	if err := p.Verify(); err != nil {
		return err
	}
	switch {
	case !p.Chunk.Equals(want.Chunk):
		return fmt.Errorf("pledge is for chunk %s, not %s: %w", p.Chunk, want.Chunk, ErrSignature)
	case p.SealedRoot != want.SealedRoot:
		return fmt.Errorf("pledge is for root %x, not %x: %w", p.SealedRoot, want.SealedRoot, ErrSignature)
	case p.Bytes != want.Bytes:
		return fmt.Errorf("pledge is for %d bytes, not %d: %w", p.Bytes, want.Bytes, ErrSignature)
	case p.Price != want.Price:
		return fmt.Errorf("pledge has price %d, not %d: %w", p.Price, want.Price, ErrSignature)
	case p.Expiry.Unix() != want.Expiry.Unix():
		return fmt.Errorf("pledge ends at %d, not %d: %w", p.Expiry.Unix(), want.Expiry.Unix(), ErrSignature)
	case p.Writer != want.Writer || p.Provider != want.Provider:
		return fmt.Errorf("pledge is of %s to %s: %w", p.Provider, p.Writer, ErrSignature)
	}
	return nil
}

// Marshal returns p in protobuf's form.
func (p Pledge) Marshal() ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(p.toPB())
	if err == nil && len(b) > MaxPledgeBytes {
		err = fmt.Errorf("%d bytes: %w", len(b), ErrMalformed)
	}
	if err != nil {
		return nil, fmt.Errorf("marshal pledge: %w", err)
	}
	return b, nil
}

// UnmarshalPledge reads what Marshal wrote. It checks the form, not the signature; a wrong form is
// [ErrMalformed]. It keeps nothing of b.
func UnmarshalPledge(b []byte) (Pledge, error) {
	if len(b) > MaxPledgeBytes {
		return Pledge{}, fmt.Errorf("unmarshal pledge: %d bytes: %w", len(b), ErrMalformed)
	}
	var m pb.Pledge
	if err := proto.Unmarshal(b, &m); err != nil {
		return Pledge{}, fmt.Errorf("unmarshal pledge: %w: %w", ErrMalformed, err)
	}
	p, err := pledgeOf(&m)
	if err != nil {
		return Pledge{}, fmt.Errorf("unmarshal %w", err)
	}
	return p, nil
}

func (p Pledge) toPB() *pb.Pledge {
	return &pb.Pledge{Chunk: p.Chunk.Bytes(), SealedRoot: p.SealedRoot[:], Bytes: uint64(p.Bytes), Price: p.Price,
		Expiry: p.Expiry.Unix(), Writer: []byte(p.Writer), Provider: []byte(p.Provider), At: p.At.Unix(), Signature: p.Signature}
}

func pledgeOf(m *pb.Pledge) (Pledge, error) {
	var c fields
	p := Pledge{
		Chunk: c.cid(m.Chunk), SealedRoot: c.hash(m.SealedRoot), Bytes: c.bytes(m.Bytes), Price: c.price(m.Price),
		Expiry: c.time(m.Expiry), Writer: c.peer(m.Writer), Provider: c.peer(m.Provider), At: c.time(m.At),
	}
	p.Signature = c.atMost("signature", m.Signature, maxSignatureBytes)
	if c.err != nil {
		return Pledge{}, fmt.Errorf("pledge: %w", c.err)
	}
	return p, nil
}
