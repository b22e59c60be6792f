package payment

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	bookFormat = "holdfast/book/1"
	bookNote   = "bookkeeping among programs that trust this file; not money"

	maxBookBytes = 64 << 20
)

// bookJSON is the file. What tells one state from the next, the revision, stands within its first bytes.
type bookJSON struct {
	Format   string        `json:"format"`
	Note     string        `json:"note"`
	Revision uint64        `json:"revision"`
	Accounts []accountJSON `json:"accounts"`
	Channels []channelJSON `json:"channels"`
}

type accountJSON struct {
	Peer    string `json:"peer"`
	Balance int64  `json:"balance"`
}

type channelJSON struct {
	ID        string     `json:"id"`
	Payer     string     `json:"payer"`
	Payee     string     `json:"payee"`
	Nonce     string     `json:"nonce"`
	Deposit   uint64     `json:"deposit"`
	Challenge int64      `json:"challenge_seconds"`
	State     State      `json:"state"`
	Settled   uint64     `json:"settled"`
	Sequence  uint64     `json:"sequence"`
	Opened    time.Time  `json:"opened"`
	Due       *time.Time `json:"due,omitempty"`
	Closed    *time.Time `json:"closed,omitempty"`
}

// encodeBook writes a book; equal books are equal bytes.
func encodeBook(l *ledger) ([]byte, error) {
	f := bookJSON{Format: bookFormat, Note: bookNote, Revision: l.revision, Accounts: []accountJSON{}, Channels: []channelJSON{}}
	for p, n := range l.balances {
		f.Accounts = append(f.Accounts, accountJSON{p.String(), n})
	}
	for _, c := range l.channels {
		f.Channels = append(f.Channels, channelJSON{
			ID: c.ID.String(), Payer: c.Payer.String(), Payee: c.Payee.String(), Nonce: hex.EncodeToString(c.Nonce[:]),
			Deposit: uint64(c.Deposit), Challenge: int64(c.Challenge / time.Second), State: c.State,
			Settled: uint64(c.Settled), Sequence: c.Sequence, Opened: c.Opened, Due: timeOrNil(c.Due), Closed: timeOrNil(c.Closed),
		})
	}
	slices.SortFunc(f.Accounts, func(a, b accountJSON) int { return cmp.Compare(a.Peer, b.Peer) })
	slices.SortFunc(f.Channels, func(a, b channelJSON) int { return cmp.Compare(a.ID, b.ID) })
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetIndent("", " ")
	if err := enc.Encode(f); err != nil {
		return nil, fmt.Errorf("encode book: %w", err)
	}
	if out.Len() > maxBookBytes {
		return nil, fmt.Errorf("encode book: %d bytes: %w", out.Len(), ErrLimit)
	}
	return out.Bytes(), nil
}

// parseBook reads a book and checks all of it. Errors wrap [ErrBook].
func parseBook(b []byte) (*ledger, error) {
	l, err := parseJSON(b)
	if err == nil {
		err = l.check()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBook, err)
	}
	return l, nil
}

func parseJSON(b []byte) (*ledger, error) {
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("torn, or not JSON: %w", err)
	}
	if head.Format != bookFormat {
		return nil, fmt.Errorf("format is %.40q, not %q", head.Format, bookFormat)
	}
	var f bookJSON
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("more after the end: %w", ErrMalformed)
	}
	l := newLedger()
	l.revision = f.Revision
	for _, a := range f.Accounts {
		p, err := peer.Decode(a.Peer)
		if err != nil {
			return nil, fmt.Errorf("account %.60q: %w", a.Peer, err)
		}
		if _, twice := l.balances[p]; twice {
			return nil, fmt.Errorf("account %s stands twice: %w", p, ErrMalformed)
		}
		l.balances[p] = a.Balance
	}
	for _, j := range f.Channels {
		c, err := j.channel()
		if err != nil {
			return nil, fmt.Errorf("channel %.70q: %w", j.ID, err)
		}
		if _, twice := l.channels[c.ID]; twice {
			return nil, fmt.Errorf("channel %s stands twice: %w", c.ID, ErrMalformed)
		}
		l.channels[c.ID] = c
	}
	return l, nil
}

func (j channelJSON) channel() (Channel, error) {
	id, err := ParseChannelID(j.ID)
	payer, err1 := peer.Decode(j.Payer)
	payee, err2 := peer.Decode(j.Payee)
	nonce, err3 := ParseChannelID(j.Nonce)
	if err := errors.Join(err, err1, err2, err3); err != nil {
		return Channel{}, err
	}
	if j.Challenge < 0 || j.Challenge > int64(maxChallenge/time.Second) {
		return Channel{}, fmt.Errorf("challenge period: %w", ErrMalformed)
	}
	return Channel{ID: id, Payer: payer, Payee: payee, Nonce: Nonce(nonce), Deposit: Amount(j.Deposit),
		Challenge: time.Duration(j.Challenge) * time.Second, State: j.State, Settled: Amount(j.Settled), Sequence: j.Sequence,
		Opened: seconds(&j.Opened), Due: seconds(j.Due), Closed: seconds(j.Closed)}, nil
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// seconds returns t as a book counts: in UTC, to the second.
func seconds(t *time.Time) time.Time {
	if t == nil || t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Second)
}
