package seal

import (
	"bytes"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/seal/pb"
)

// maxTime is the last second of the year 9999.
const maxTime = 253402300799

func validTime(t time.Time) bool { return t.Unix() >= 0 && t.Unix() <= maxTime }

func validPeer(p peer.ID) bool { return len(p) > 0 && len(p) <= maxPeerBytes }

// fields turns fields of messages into values and keeps the first error, which wraps ErrMalformed.
type fields struct{ err error }

func (f *fields) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrMalformed)
	}
}

// fixed copies b, which must be as long as to.
func (f *fields) fixed(what string, to, b []byte) {
	if len(b) != len(to) {
		f.fail("%s of %d bytes, want %d", what, len(b), len(to))
		return
	}
	copy(to, b)
}

func (f *fields) link(b []byte) (id LinkID)  { f.fixed("link ID", id[:], b); return id }
func (f *fields) hash(b []byte) (h [32]byte) { f.fixed("hash", h[:], b); return h }
func (f *fields) nonce(b []byte) (n Nonce)   { f.fixed("nonce", n[:], b); return n }
func (f *fields) bitmap(b []byte) (map_ Bitmap) {
	if len(b) > 0 { // of a refusal
		f.fixed("bitmap", map_[:], b)
	}
	return map_
}

func (f *fields) atMost(what string, b []byte, most int) []byte {
	if len(b) > most {
		f.fail("%s of %d bytes, at most %d", what, len(b), most)
		return nil
	}
	if len(b) == 0 {
		return nil
	}
	return bytes.Clone(b)
}

func (f *fields) cid(b []byte) cid.Cid {
	if len(b) == 0 || len(b) > maxCIDBytes {
		f.fail("CID of %d bytes", len(b))
		return cid.Undef
	}
	c, err := cid.Cast(b)
	if err != nil {
		f.fail("CID: %v", err)
		return cid.Undef
	}
	return c
}

func (f *fields) peer(b []byte) peer.ID {
	if p := peer.ID(b); validPeer(p) {
		return p
	}
	f.fail("peer ID of %d bytes", len(b))
	return ""
}

func (f *fields) time(unix int64) time.Time {
	if unix < 0 || unix > maxTime {
		f.fail("time %d", unix)
		unix = 0
	}
	return time.Unix(unix, 0)
}

// maybe is a time that may be left out: the zero Time.
func (f *fields) maybe(unix int64) time.Time {
	if unix == 0 {
		return time.Time{}
	}
	return f.time(unix)
}

func (f *fields) bytes(n uint64) int64 {
	if n < 1 || n > MaxChunkBytes {
		f.fail("chunk of %d bytes", n)
		return 0
	}
	return int64(n)
}

func (f *fields) price(n uint64) uint64 {
	if n > MaxPrice {
		f.fail("price %d", n)
		return 0
	}
	return n
}

// hashes takes a list of hashes apart.
func (f *fields) hashes(what string, b []byte, most int) [][32]byte {
	if len(b)%32 != 0 || len(b)/32 > most {
		f.fail("%s of %d bytes", what, len(b))
		return nil
	}
	if len(b) == 0 {
		return nil
	}
	hs := make([][32]byte, len(b)/32)
	for i := range hs {
		copy(hs[i][:], b[32*i:])
	}
	return hs
}

func joinHashes(hs [][32]byte) []byte {
	b := make([]byte, 0, 32*len(hs))
	for i := range hs {
		b = append(b, hs[i][:]...)
	}
	return b
}

// refusal reads a refusal. The text is printed by others, so only printing characters are kept.
func (f *fields) refusal(m *pb.Refusal) *Refusal {
	if m == nil {
		return nil
	}
	if m.Code == 0 || m.Code > 255 {
		f.fail("refusal code %d", m.Code)
	}
	if len(m.Text) > MaxRefusalText {
		f.fail("refusal of %d bytes", len(m.Text))
		return nil
	}
	return &Refusal{Code: RefusalCode(m.Code), Text: printing(m.Text)}
}

func (r *Refusal) toPB() *pb.Refusal {
	if r == nil {
		return nil
	}
	return &pb.Refusal{Code: uint32(r.Code), Text: cut(printing(r.Text), MaxRefusalText)}
}

// printing replaces what would move a terminal's cursor.
func printing(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}

// cut shortens s to at most n bytes, between characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
