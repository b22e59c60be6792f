package payment

import (
	"bytes"
	"os"
	"testing"
)

func FuzzParseBook(f *testing.F) {
	p := newPair(f, 100)
	_, err := p.book.Settle(f.Context(), p.voucher(30, 3))
	must(f, err)
	open, err := os.ReadFile(p.book.Path())
	must(f, err)
	_, err = p.close(p.payerKey, Voucher{})
	must(f, err)
	closing, err := os.ReadFile(p.book.Path())
	must(f, err)
	_, err = p.close(p.payeeKey, p.voucher(40, 4))
	must(f, err)
	closed, err := os.ReadFile(p.book.Path())
	must(f, err)
	corpus(f, "FuzzParseBook", open, closing, closed, open[:len(open)/2], []byte("{}"), []byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseBook(b)
		if err != nil {
			wantErr(t, err, ErrBook)
			return
		}
		again, err := encodeBook(l)
		must(t, err)
		back, err := parseBook(again)
		must(t, err)
		third, err := encodeBook(back)
		if must(t, err); !bytes.Equal(again, third) {
			t.Fatalf("a book changes when it is written and read:\n%s\n%s", again, third)
		}
	})
}
