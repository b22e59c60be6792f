package payment

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// What is hashed or signed begins with one of these, so that nothing made for another purpose fits.
// After it come numbers of eight bytes, big endian, and peer IDs behind their length in two bytes.
const (
	domainChannel = "holdfast/payment/channel/1\x00"
	domainOpening = "holdfast/payment/opening/1\x00"
	domainVoucher = "holdfast/payment/voucher/1\x00"
	domainClosing = "holdfast/payment/closing/1\x00"
)

const (
	maxPeerBytes      = 128
	maxSignatureBytes = 128
)

func validPeer(p peer.ID) bool { return len(p) > 0 && len(p) <= maxPeerBytes }

func appendPeer(b []byte, p peer.ID) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
	return append(b, p...)
}

func (o Opening) signed() []byte {
	b := []byte(domainOpening)
	b = appendPeer(b, o.Payer)
	b = appendPeer(b, o.Payee)
	b = append(b, o.Nonce[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(o.Deposit))
	b = binary.BigEndian.AppendUint64(b, uint64(o.Challenge/time.Second))
	return binary.BigEndian.AppendUint64(b, uint64(o.At.Unix()))
}

func (v Voucher) signed() []byte {
	b := append([]byte(domainVoucher), v.Channel[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(v.Amount))
	return binary.BigEndian.AppendUint64(b, v.Sequence)
}

func (c Closing) signed() []byte {
	b := append([]byte(domainClosing), c.Channel[:]...)
	b = appendPeer(b, c.By)
	return binary.BigEndian.AppendUint64(b, uint64(c.Last.Amount))
}

// verify checks a signature by the public key in the signer's ID.
func verify(signer peer.ID, data, signature []byte) error {
	if !validPeer(signer) || len(signature) == 0 || len(signature) > maxSignatureBytes {
		return ErrSignature
	}
	key, err := signer.ExtractPublicKey()
	if err != nil {
		return fmt.Errorf("%s: %w", signer, ErrKey)
	}
	if ok, err := key.Verify(data, signature); err != nil || !ok {
		return ErrSignature
	}
	return nil
}
