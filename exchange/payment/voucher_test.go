package payment

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

var update = flag.Bool("update", false, "write testdata/vectors.json and seeds of the fuzz targets anew")

// vector is one channel and what is signed about it, with the keys of the names payer and payee.
type vector struct {
	Payer     string `json:"payer"`
	Payee     string `json:"payee"`
	Nonce     string `json:"nonce"`
	Deposit   uint64 `json:"deposit"`
	Challenge int64  `json:"challenge_seconds"`
	At        int64  `json:"at"`
	Amount    uint64 `json:"amount"`
	Sequence  uint64 `json:"sequence"`

	Channel          string `json:"channel"`
	OpeningSigned    string `json:"opening_signed"`
	OpeningSignature string `json:"opening_signature"`
	VoucherSigned    string `json:"voucher_signed"`
	Voucher          string `json:"voucher"`
	ClosingSigned    string `json:"closing_signed"`
	ClosingSignature string `json:"closing_signature"`
}

const vectorFile = "testdata/vectors.json"

// fill computes from the inputs of a vector what belongs to them.
func (v *vector) fill(t *testing.T) {
	t.Helper()
	payerKey, payer := testKey(t, "payer")
	payeeKey, payee := testKey(t, "payee")
	v.Payer, v.Payee = payer.String(), payee.String()
	o := Opening{Payer: payer, Payee: payee, Deposit: Amount(v.Deposit), Challenge: time.Duration(v.Challenge) * time.Second, At: time.Unix(v.At, 0)}
	_, err := hex.Decode(o.Nonce[:], []byte(v.Nonce))
	must(t, err)
	o.Signature, err = payerKey.Sign(o.signed())
	must(t, err)
	must(t, o.Verify())
	voucher, err := NewVoucher(payerKey, o.ID(), Amount(v.Amount), v.Sequence)
	must(t, err)
	must(t, voucher.Verify(payer))
	wire, err := voucher.Marshal()
	must(t, err)
	c, err := NewClosing(payeeKey, o.ID(), voucher)
	must(t, err)
	must(t, c.Verify())
	v.Channel = o.ID().String()
	v.OpeningSigned, v.OpeningSignature = hex.EncodeToString(o.signed()), hex.EncodeToString(o.Signature)
	v.VoucherSigned, v.Voucher = hex.EncodeToString(voucher.signed()), hex.EncodeToString(wire)
	v.ClosingSigned, v.ClosingSignature = hex.EncodeToString(c.signed()), hex.EncodeToString(c.Signature)
}

func TestVectors(t *testing.T) {
	var want []vector
	if *update {
		for i := range uint64(3) {
			v := vector{Nonce: hex.EncodeToString(bytes.Repeat([]byte{byte(i)}, 32)), Deposit: 1000 << (20 * i), Challenge: int64(3600 * i),
				At: 1_800_000_000 + int64(i), Amount: 77 << (20 * i), Sequence: 1 + i}
			v.fill(t)
			want = append(want, v)
		}
		b, err := json.MarshalIndent(want, "", "  ")
		must(t, err)
		must(t, os.WriteFile(vectorFile, append(b, '\n'), 0o644))
	}
	b, err := os.ReadFile(vectorFile)
	must(t, err)
	must(t, json.Unmarshal(b, &want))
	if len(want) != 3 {
		t.Fatalf("%d vectors", len(want))
	}
	for i, w := range want {
		got := w
		got.fill(t)
		if got != w {
			t.Errorf("vector %d:\n got %+v\nwant %+v", i, got, w)
		}
	}
}

func TestAmountArithmetic(t *testing.T) {
	cases := []struct {
		name string
		do   func() (Amount, error)
		want Amount
		err  error
	}{
		{"add", func() (Amount, error) { return Amount(3).Add(4) }, 7, nil},
		{"add to the most", func() (Amount, error) { return (MaxAmount - 1).Add(1) }, MaxAmount, nil},
		{"add over the most", func() (Amount, error) { return MaxAmount.Add(1) }, 0, ErrOverflow},
		{"add to what is too much", func() (Amount, error) { return (MaxAmount + 1).Add(0) }, 0, ErrOverflow},
		{"add what wraps around", func() (Amount, error) { return Amount(1).Add(1<<64 - 1) }, 0, ErrOverflow},
		{"subtract", func() (Amount, error) { return Amount(4).Sub(4) }, 0, nil},
		{"subtract too much", func() (Amount, error) { return Amount(4).Sub(5) }, 0, ErrOverflow},
		{"multiply", func() (Amount, error) { return Amount(6).Mul(7) }, 42, nil},
		{"multiply by zero", func() (Amount, error) { return MaxAmount.Mul(0) }, 0, nil},
		{"multiply to the most", func() (Amount, error) { return MaxAmount.Mul(1) }, MaxAmount, nil},
		{"multiply over the most", func() (Amount, error) { return (MaxAmount/2 + 1).Mul(2) }, 0, ErrOverflow},
		{"multiply what wraps around", func() (Amount, error) { return Amount(1 << 33).Mul(1 << 33) }, 0, ErrOverflow},
	}
	for _, c := range cases {
		got, err := c.do()
		if c.err != nil {
			wantErr(t, err, c.err)
		} else if err != nil || got != c.want {
			t.Errorf("%s: got %d, %v, want %d", c.name, got, err, c.want)
		}
	}
}

func TestChannelIDText(t *testing.T) {
	_, payer := testKey(t, "payer")
	_, payee := testKey(t, "payee")
	id := NewChannelID(payer, payee, Nonce{1})
	back, err := ParseChannelID(id.String())
	if must(t, err); back != id {
		t.Fatal("ID changed on the way through text")
	}
	for _, s := range []string{"", "00", id.String() + "00", "zz" + id.String()[2:]} {
		_, err := ParseChannelID(s)
		wantErr(t, err, ErrMalformed)
	}
	for _, other := range []ChannelID{NewChannelID(payee, payer, Nonce{1}), NewChannelID(payer, payee, Nonce{2})} {
		if other == id {
			t.Fatal("different channels have one ID")
		}
	}
	if NewChannelID("ab", "c", Nonce{}) == NewChannelID("a", "bc", Nonce{}) {
		t.Fatal("peer IDs run into each other")
	}
}

func TestVoucherVerify(t *testing.T) {
	key, payer := testKey(t, "payer")
	_, other := testKey(t, "other")
	good, err := NewVoucher(key, ChannelID{1}, 5, 2)
	must(t, err)
	must(t, good.Verify(payer))
	change := func(fn func(v *Voucher)) Voucher {
		v := good
		v.Signature = bytes.Clone(good.Signature)
		fn(&v)
		return v
	}
	cases := map[string]struct {
		v  Voucher
		by peer.ID
	}{
		"more":             {change(func(v *Voucher) { v.Amount++ }), payer},
		"later":            {change(func(v *Voucher) { v.Sequence++ }), payer},
		"other channel":    {change(func(v *Voucher) { v.Channel[0]++ }), payer},
		"torn signature":   {change(func(v *Voucher) { v.Signature[9] ^= 1 }), payer},
		"short signature":  {change(func(v *Voucher) { v.Signature = v.Signature[:63] }), payer},
		"no signature":     {change(func(v *Voucher) { v.Signature = nil }), payer},
		"huge signature":   {change(func(v *Voucher) { v.Signature = make([]byte, 1<<20) }), payer},
		"of somebody else": {good, other},
		"of nobody":        {good, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { wantErr(t, c.v.Verify(c.by), ErrSignature) })
	}
	hashed := peer.ID("\x12\x20" + string(bytes.Repeat([]byte{7}, 32))) // an ID that is the hash of a key
	wantErr(t, good.Verify(hashed), ErrKey)
	wantErr(t, Voucher{Amount: MaxAmount + 1}.Verify(payer), ErrOverflow)
	// A signature made for another purpose over the same fields does not fit.
	c, err := NewClosing(key, ChannelID{1}, Voucher{Channel: ChannelID{1}, Amount: 5})
	must(t, err)
	wantErr(t, change(func(v *Voucher) { v.Signature = c.Signature }).Verify(payer), ErrSignature)
}

func FuzzUnmarshalVoucher(f *testing.F) {
	key, _ := testKey(f, "payer")
	v, err := NewVoucher(key, ChannelID{1, 2, 3}, 1<<40, 7)
	must(f, err)
	b, err := v.Marshal()
	must(f, err)
	corpus(f, "FuzzUnmarshalVoucher", b, b[:len(b)-1], append(bytes.Clone(b), b...), []byte{}, make([]byte, MaxVoucherBytes+1))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := UnmarshalVoucher(b)
		if err != nil {
			wantErr(t, err, ErrMalformed)
			return
		}
		if len(b) > MaxVoucherBytes || v.Amount > MaxAmount {
			t.Fatalf("%d bytes were taken: %+v", len(b), v)
		}
		again, err := v.Marshal()
		must(t, err)
		w, err := UnmarshalVoucher(again)
		if must(t, err); w.Channel != v.Channel || w.Amount != v.Amount || w.Sequence != v.Sequence || !bytes.Equal(w.Signature, v.Signature) {
			t.Fatalf("%+v became %+v", v, w)
		}
	})
}

// corpus adds seeds to a fuzz target, and with -update writes them into testdata.
func corpus(f *testing.F, target string, seeds ...[]byte) {
	for i, b := range seeds {
		f.Add(b)
		if *update {
			dir := filepath.Join("testdata", "fuzz", target)
			must(f, os.MkdirAll(dir, 0o755))
			must(f, os.WriteFile(filepath.Join(dir, fmt.Sprint("seed-", i)), fmt.Appendf(nil, "go test fuzz v1\n[]byte(%q)\n", b), 0o644))
		}
	}
}
