package payment

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastfs/holdfast/exchange/payment/pb"
)

// Voucher promises the payee Amount in all for everything so far. The zero Voucher pays nothing.
type Voucher struct {
	Channel   ChannelID
	Amount    Amount // of all vouchers of the channel up to this one
	Sequence  uint64 // grows with every voucher, from 1
	Signature []byte // of the payer
}

// MaxVoucherBytes bounds the marshalled form.
const MaxVoucherBytes = 256

// NewVoucher signs a voucher with the payer's key.
func NewVoucher(key crypto.PrivKey, id ChannelID, amount Amount, sequence uint64) (Voucher, error) {
	v := Voucher{Channel: id, Amount: amount, Sequence: sequence}
	if err := amount.check("voucher"); err != nil {
		return Voucher{}, fmt.Errorf("sign voucher: %w", err)
	}
	var err error
	if v.Signature, err = key.Sign(v.signed()); err != nil {
		return Voucher{}, fmt.Errorf("sign voucher: %w", err)
	}
	return v, nil
}

// IsZero says whether v is no voucher at all.
func (v Voucher) IsZero() bool {
	return v.Channel == ChannelID{} && v.Amount == 0 && v.Sequence == 0 && len(v.Signature) == 0
}

// Verify checks that payer signed v. It returns [ErrSignature] where not, and [ErrKey] for a peer
// whose ID does not hold its key.
func (v Voucher) Verify(payer peer.ID) error {
	if err := v.Amount.check("voucher"); err != nil {
		return fmt.Errorf("verify voucher: %w", err)
	}
	if err := verify(payer, v.signed(), v.Signature); err != nil {
		return fmt.Errorf("verify voucher: %w", err)
	}
	return nil
}

// Marshal returns v in protobuf's form.
func (v Voucher) Marshal() ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(&pb.Voucher{
		Channel: v.Channel[:], Amount: uint64(v.Amount), Sequence: v.Sequence, Signature: v.Signature,
	})
	if err != nil {
		return nil, fmt.Errorf("marshal voucher: %w", err)
	}
	if len(b) > MaxVoucherBytes {
		return nil, fmt.Errorf("marshal voucher: %d bytes: %w", len(b), ErrMalformed)
	}
	return b, nil
}

// UnmarshalVoucher reads what Marshal wrote. It checks the form, not the signature; a wrong form is
// [ErrMalformed]. It keeps nothing of b.
func UnmarshalVoucher(b []byte) (Voucher, error) {
	if len(b) > MaxVoucherBytes {
		return Voucher{}, fmt.Errorf("unmarshal voucher: %d bytes: %w", len(b), ErrMalformed)
	}
	var m pb.Voucher
	if err := proto.Unmarshal(b, &m); err != nil {
		return Voucher{}, fmt.Errorf("unmarshal voucher: %w: %w", ErrMalformed, err)
	}
	v := Voucher{Amount: Amount(m.Amount), Sequence: m.Sequence, Signature: m.Signature}
	n := len(m.Signature)
	if len(m.Channel) != len(v.Channel) || v.Amount > MaxAmount || n == 0 || n > maxSignatureBytes {
		return Voucher{}, fmt.Errorf("unmarshal voucher: %w", ErrMalformed)
	}
	copy(v.Channel[:], m.Channel)
	return v, nil
}
