package exchange

import (
	"bufio"
	"fmt"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/encoding/protowire"
)

// wireHead is everything of a message but its block data: spans of head are written before each
// block, the rest after the last one.
type wireHead struct {
	head  []byte
	spans []int // end in head of what comes before block i
}

// encode writes the message with its length before it. Block data goes to w as it is, never copied
// together.
func (m *message) encode(w *bufio.Writer) error {
	h, total := m.layout()
	if total > maxFrameBytes {
		return fmt.Errorf("encode message: %d bytes, at most %d are allowed", total, maxFrameBytes)
	}
	var length [10]byte
	if _, err := w.Write(protowire.AppendVarint(length[:0], uint64(total))); err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	from := 0
	for i, b := range m.blocks {
		if _, err := w.Write(h.head[from:h.spans[i]]); err != nil {
			return fmt.Errorf("write message: %w", err)
		}
		if _, err := w.Write(b.RawData()); err != nil {
			return fmt.Errorf("write block: %w", err)
		}
		from = h.spans[i]
	}
	if _, err := w.Write(h.head[from:]); err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	return nil
}

// layout encodes all but block data and says how long the whole message is.
func (m *message) layout() (wireHead, int) {
	h := wireHead{
		head:  make([]byte, 0, 64*(len(m.entries)+len(m.presences))+32*len(m.blocks)+16),
		spans: make([]int, 0, len(m.blocks)),
	}
	total := 0
	for _, b := range m.blocks {
		h.head = appendBlockHead(h.head, b)
		h.spans = append(h.spans, len(h.head))
		total += len(b.RawData())
	}
	h.head = m.appendWantlist(h.head)
	for _, p := range m.presences {
		h.head = appendPresence(h.head, p)
	}
	if m.pending != 0 {
		h.head = protowire.AppendTag(h.head, fieldPending, protowire.VarintType)
		h.head = protowire.AppendVarint(h.head, uint64(int64(m.pending)))
	}
	if m.account != nil {
		h.head = protowire.AppendTag(h.head, fieldAccount, protowire.BytesType)
		h.head = protowire.AppendBytes(h.head, m.account.encode())
	}
	for _, v := range m.vouchers {
		h.head = protowire.AppendTag(h.head, fieldVouchers, protowire.BytesType)
		h.head = protowire.AppendBytes(h.head, v)
	}
	h.head = m.appendManifests(h.head)
	return h, total + len(h.head)
}

func (m *message) appendManifests(b []byte) []byte {
	for _, c := range m.roots {
		b = protowire.AppendTag(b, fieldManifestsOf, protowire.BytesType)
		b = protowire.AppendString(b, c.KeyString())
	}
	for _, k := range m.manifests {
		part := protowire.AppendTag(nil, fieldManifestsRoot, protowire.BytesType)
		part = protowire.AppendString(part, k.root.KeyString())
		for _, c := range k.manifests {
			part = protowire.AppendTag(part, fieldManifestsCIDs, protowire.BytesType)
			part = protowire.AppendString(part, c.KeyString())
		}
		b = protowire.AppendTag(b, fieldManifests, protowire.BytesType)
		b = protowire.AppendBytes(b, part)
	}
	return b
}

// appendBlockHead appends a payload field up to where the data begins.
func appendBlockHead(b []byte, block blocks.Block) []byte {
	var buf [48]byte
	prefix := appendPrefix(buf[:0], block.Cid())
	data := len(block.RawData())
	length := protowire.SizeTag(fieldPayloadPrefix) + protowire.SizeBytes(len(prefix)) +
		protowire.SizeTag(fieldPayloadData) + protowire.SizeBytes(data)
	b = protowire.AppendTag(b, fieldPayload, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(length))
	b = protowire.AppendTag(b, fieldPayloadPrefix, protowire.BytesType)
	b = protowire.AppendBytes(b, prefix)
	b = protowire.AppendTag(b, fieldPayloadData, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(data))
}

// appendPrefix appends a CID without its digest.
func appendPrefix(b []byte, c cid.Cid) []byte {
	if c.Version() == 0 {
		return append(b, 0, byte(cid.DagProtobuf), mh.SHA2_256, sha256Bytes)
	}
	s := c.KeyString()
	return append(b, s[:len(s)-c.Prefix().MhLength]...)
}

// appendWantlist appends the want list, always there as older peers expect it.
func (m *message) appendWantlist(b []byte) []byte {
	length := 0
	for _, e := range m.entries {
		length += protowire.SizeTag(fieldEntries) + protowire.SizeBytes(entryBytes(e))
	}
	if m.full {
		length += 2
	}
	b = protowire.AppendTag(b, fieldWantlist, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(length))
	for _, e := range m.entries {
		b = protowire.AppendTag(b, fieldEntries, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(entryBytes(e)))
		b = appendEntry(b, e)
	}
	if m.full {
		b = appendFlag(b, fieldFull)
	}
	return b
}

func appendEntry(b []byte, e Entry) []byte {
	b = protowire.AppendTag(b, fieldEntryCID, protowire.BytesType)
	b = protowire.AppendString(b, e.CID.KeyString())
	if e.Priority != 0 {
		b = protowire.AppendTag(b, fieldEntryPriority, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(int64(e.Priority)))
	}
	switch e.Kind {
	case Cancel:
		b = appendFlag(b, fieldEntryCancel)
	case WantHave:
		b = appendFlag(b, fieldEntryWantType)
	}
	if e.SendDontHave {
		b = appendFlag(b, fieldEntryDontHave)
	}
	return appendNumber(b, fieldEntryPrice, uint64(e.PricePerMiB))
}

// entryBytes is how many bytes appendEntry appends.
func entryBytes(e Entry) int {
	n := 1 + protowire.SizeBytes(e.CID.ByteLen()) + numberBytes(fieldEntryPrice, uint64(e.PricePerMiB))
	if e.Priority != 0 {
		n += 1 + protowire.SizeVarint(uint64(int64(e.Priority)))
	}
	if e.Kind != WantBlock {
		n += 2
	}
	if e.SendDontHave {
		n += 2
	}
	return n
}

func appendPresence(b []byte, p Presence) []byte {
	length := 1 + protowire.SizeBytes(p.CID.ByteLen()) + numberBytes(fieldPresencePrice, uint64(p.Price)) + numberBytes(fieldPresenceBytes, p.Bytes)
	if !p.Have {
		length += 2
	}
	b = protowire.AppendTag(b, fieldPresences, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(length))
	b = protowire.AppendTag(b, fieldPresenceCID, protowire.BytesType)
	b = protowire.AppendString(b, p.CID.KeyString())
	if !p.Have {
		b = appendFlag(b, fieldPresenceType)
	}
	b = appendNumber(b, fieldPresencePrice, uint64(p.Price))
	return appendNumber(b, fieldPresenceBytes, p.Bytes)
}

func (a *Account) encode() []byte {
	b := appendNumber(nil, fieldAccountPrice, uint64(a.PricePerMiB))
	b = appendNumber(b, fieldAccountCredit, a.CreditBytes)
	b = appendNumber(b, fieldAccountOwed, uint64(a.Owed))
	if a.Suspended {
		b = appendFlag(b, fieldAccountSuspended)
	}
	return b
}

// appendNumber appends a varint field, unless it is zero.
func appendNumber(b []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

// numberBytes is how many bytes appendNumber appends.
func numberBytes(n protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(n) + protowire.SizeVarint(v)
}

// appendFlag appends a varint field of value one: true, Have of a want, DontHave of a presence.
func appendFlag(b []byte, n protowire.Number) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), 1)
}
