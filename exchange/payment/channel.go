package payment

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// ChannelID names a channel for all time: the sha2-256 of its payer, payee and nonce.
type ChannelID [32]byte

// Nonce makes the channels of two peers differ. It is random and never used again.
type Nonce [32]byte

// String returns the ID in hexadecimal digits.
func (id ChannelID) String() string { return hex.EncodeToString(id[:]) }

// ParseChannelID reads what String wrote; other text is [ErrMalformed].
func ParseChannelID(s string) (id ChannelID, err error) {
	if len(s) != 2*len(id) {
		return id, fmt.Errorf("parse channel ID: %d digits: %w", len(s), ErrMalformed)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ChannelID{}, fmt.Errorf("parse channel ID: %w", ErrMalformed)
	}
	return id, nil
}

// NewChannelID computes the ID of a channel.
func NewChannelID(payer, payee peer.ID, nonce Nonce) ChannelID {
	b := []byte(domainChannel)
	b = appendPeer(b, payer)
	b = appendPeer(b, payee)
	b = append(b, nonce[:]...)
	return sha256.Sum256(b)
}

// State is where a channel stands in the ledger.
type State string

const (
	// StateOpening: signed by the payer; the ledger may not have heard of it. Only the payer lists it.
	StateOpening State = "opening"
	// StateOpen: the deposit is laid down and vouchers can be settled.
	StateOpen State = "open"
	// StateClosing: the payer wants the rest back. Until the challenge period ends vouchers can be settled.
	StateClosing State = "closing"
	// StateClosed: the rest went back to the payer. Nothing changes any more.
	StateClosed State = "closed"
)

// Channel is what a ledger knows of a channel. Times are to the second, zero where not reached.
type Channel struct {
	ID        ChannelID
	Payer     peer.ID
	Payee     peer.ID
	Nonce     Nonce
	Deposit   Amount
	Challenge time.Duration // how long the payee may settle after the payer closed
	State     State
	Settled   Amount // of the deposit, given to the payee so far
	Sequence  uint64 // of the voucher that was settled last
	Opened    time.Time
	Due       time.Time // end of the challenge period
	Closed    time.Time
}

// over says whether vouchers can no longer be settled.
func (c Channel) over(now time.Time) bool {
	return c.State == StateClosed || c.State == StateClosing && !now.Before(c.Due)
}

// Opening asks a ledger to lay down a deposit.
type Opening struct {
	Payer     peer.ID
	Payee     peer.ID
	Nonce     Nonce
	Deposit   Amount
	Challenge time.Duration // whole seconds
	At        time.Time     // to the second; ledgers refuse old openings, so that they can forget closed channels
	Signature []byte        // of the payer
}

// Purpose says what a channel is for. It is the first byte of the channel's nonce, so that both sides know it without
// another word, and what is paid for one thing is never taken for another's.
type Purpose byte

// The purposes. Accounts of no purpose are for all channels of a peer, whatever theirs is.
const (
	AnyPurpose Purpose = iota
	ForBlocks          // of the exchange
	ForStorage         // of links
)

// serves says whether a channel is one of those that accounts of a purpose are for.
func (p Purpose) serves(n Nonce) bool { return p == AnyPurpose || n[0] == byte(p) }

// NewOpening signs an opening with the payer's key and a fresh nonce.
func NewOpening(key crypto.PrivKey, payee peer.ID, deposit Amount, challenge time.Duration, at time.Time) (Opening, error) {
	return newOpening(key, payee, AnyPurpose, deposit, challenge, at)
}

func newOpening(key crypto.PrivKey, payee peer.ID, purpose Purpose, deposit Amount, challenge time.Duration, at time.Time) (Opening, error) {
	payer, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return Opening{}, fmt.Errorf("sign opening: %w", err)
	}
	o := Opening{Payer: payer, Payee: payee, Deposit: deposit,
		Challenge: challenge.Truncate(time.Second), At: at.UTC().Truncate(time.Second)}
	if _, err := rand.Read(o.Nonce[:]); err != nil {
		return Opening{}, fmt.Errorf("sign opening: %w", err)
	}
	if purpose != AnyPurpose {
		o.Nonce[0] = byte(purpose)
	}
	if err := o.check(); err != nil {
		return Opening{}, fmt.Errorf("sign opening: %w", err)
	}
	if o.Signature, err = key.Sign(o.signed()); err != nil {
		return Opening{}, fmt.Errorf("sign opening: %w", err)
	}
	return o, nil
}

// ID is the ID of the channel that o opens.
func (o Opening) ID() ChannelID { return NewChannelID(o.Payer, o.Payee, o.Nonce) }

// Verify checks terms and signature.
func (o Opening) Verify() error {
	if err := o.check(); err != nil {
		return fmt.Errorf("verify opening: %w", err)
	}
	if err := verify(o.Payer, o.signed(), o.Signature); err != nil {
		return fmt.Errorf("verify opening: %w", err)
	}
	return nil
}

// maxChallenge bounds challenge periods, so that times stay in range.
const maxChallenge = 366 * 24 * time.Hour

func (o Opening) check() error {
	switch {
	case o.Payer == o.Payee:
		return fmt.Errorf("payer and payee are one: %w", ErrTerms)
	case !validPeer(o.Payer) || !validPeer(o.Payee):
		return fmt.Errorf("peer ID: %w", ErrMalformed)
	case o.Deposit == 0:
		return fmt.Errorf("no deposit: %w", ErrTerms)
	case o.Challenge < 0 || o.Challenge > maxChallenge || o.Challenge%time.Second != 0:
		return fmt.Errorf("challenge period of %v: %w", o.Challenge, ErrTerms)
	case !validTime(o.At):
		return fmt.Errorf("time of opening: %w", ErrTerms)
	}
	return o.Deposit.check("deposit")
}

// Closing asks a ledger to close a channel.
type Closing struct {
	Channel   ChannelID
	By        peer.ID // payer or payee
	Last      Voucher // settled first; the zero Voucher for none
	Signature []byte  // of By, over the channel and the amount of Last
}

// NewClosing signs a closing with the key of payer or payee. Last may be the zero Voucher.
func NewClosing(key crypto.PrivKey, id ChannelID, last Voucher) (Closing, error) {
	by, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return Closing{}, fmt.Errorf("sign closing: %w", err)
	}
	c := Closing{Channel: id, By: by, Last: last}
	if c.Signature, err = key.Sign(c.signed()); err != nil {
		return Closing{}, fmt.Errorf("sign closing: %w", err)
	}
	return c, nil
}

// Verify checks the signature of the closing, not that of its voucher.
func (c Closing) Verify() error {
	if !c.Last.IsZero() && c.Last.Channel != c.Channel {
		return fmt.Errorf("verify closing: last voucher: %w", ErrParty)
	}
	if err := verify(c.By, c.signed(), c.Signature); err != nil {
		return fmt.Errorf("verify closing: %w", err)
	}
	return nil
}

// validTime keeps times in the range that every form of writing them has.
func validTime(t time.Time) bool { return t.Year() >= 1970 && t.Year() < 9000 }
