package exchange

import (
	"bytes"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of pb/message.proto.
const (
	fieldWantlist  protowire.Number = 1
	fieldBlocks    protowire.Number = 2
	fieldPayload   protowire.Number = 3
	fieldPresences protowire.Number = 4
	fieldPending   protowire.Number = 5
	fieldAccount   protowire.Number = 16
	fieldVouchers  protowire.Number = 17

	fieldManifestsOf protowire.Number = 18
	fieldManifests   protowire.Number = 19

	fieldManifestsRoot protowire.Number = 1
	fieldManifestsCIDs protowire.Number = 2

	fieldEntries protowire.Number = 1
	fieldFull    protowire.Number = 2

	fieldEntryCID      protowire.Number = 1
	fieldEntryPriority protowire.Number = 2
	fieldEntryCancel   protowire.Number = 3
	fieldEntryWantType protowire.Number = 4
	fieldEntryDontHave protowire.Number = 5
	fieldEntryPrice    protowire.Number = 16

	fieldPayloadPrefix protowire.Number = 1
	fieldPayloadData   protowire.Number = 2

	fieldPresenceCID   protowire.Number = 1
	fieldPresenceType  protowire.Number = 2
	fieldPresencePrice protowire.Number = 16
	fieldPresenceBytes protowire.Number = 17

	fieldAccountPrice     protowire.Number = 1
	fieldAccountCredit    protowire.Number = 2
	fieldAccountOwed      protowire.Number = 3
	fieldAccountSuspended protowire.Number = 4

	wantTypeHave     = 1 // Message.Wantlist.WantType
	presenceDontHave = 1 // Message.BlockPresenceType
)

// rawBlock is a block that is not verified yet. data is a slice of the frame.
type rawBlock struct {
	prefix cid.Prefix
	data   []byte
}

// decoded is a frame taken apart. Only the raw blocks point into the frame.
type decoded struct {
	message
	raw  []rawBlock
	long []rawBlock // longer than a block may be
}

// field is one field of a protobuf message: value for length-delimited ones, num for varints.
type field struct {
	number protowire.Number
	kind   protowire.Type
	value  []byte
	num    uint64
}

// eachField calls do for every field of b, in order.
func eachField(b []byte, do func(field) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return malformed("field tag: %v", protowire.ParseError(n))
		}
		b = b[n:]
		f := field{number: number, kind: kind}
		switch kind {
		case protowire.BytesType:
			f.value, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			f.num, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return malformed("field %d: %v", number, protowire.ParseError(n))
		}
		b = b[n:]
		if err := do(f); err != nil {
			return err
		}
	}
	return nil
}

// decodeFrame takes a frame apart without copying block data. Unknown fields are passed over, as
// are known ones of another wire type; what cannot be parsed or goes past the bounds is an error
// that wraps errMalformed.
func decodeFrame(frame []byte) (decoded, error) {
	var d decoded
	err := eachField(frame, func(f field) error {
		switch {
		case f.number == fieldPending && f.kind == protowire.VarintType:
			d.pending = int32(f.num)
			return nil
		case f.kind != protowire.BytesType:
			return nil
		}
		switch f.number {
		case fieldWantlist:
			return d.wantlist(f.value)
		case fieldBlocks:
			return d.block(rawBlock{prefix: prefixV0, data: f.value})
		case fieldPayload:
			return d.payload(f.value)
		case fieldPresences:
			return d.presence(f.value)
		case fieldAccount:
			return d.takeAccount(f.value)
		case fieldVouchers:
			return d.voucher(f.value)
		case fieldManifestsOf:
			return d.manifestsOf(f.value)
		case fieldManifests:
			return d.manifestsAre(f.value)
		}
		return nil
	})
	return d, err
}

// prefixV0 is what every block of version 1.0 has.
var prefixV0 = cid.Prefix{Version: 0, Codec: cid.DagProtobuf, MhType: mh.SHA2_256, MhLength: sha256Bytes}

func (d *decoded) wantlist(b []byte) error {
	return eachField(b, func(f field) error {
		switch {
		case f.number == fieldFull && f.kind == protowire.VarintType:
			d.full = f.num != 0
		case f.number == fieldEntries && f.kind == protowire.BytesType:
			return d.entry(f.value)
		}
		return nil
	})
}

func (d *decoded) entry(b []byte) error {
	if len(d.entries) >= maxWireEntries {
		return malformed("more than %d want list entries", maxWireEntries)
	}
	var (
		e      = Entry{Kind: WantBlock}
		raw    []byte
		cancel bool
	)
	err := eachField(b, func(f field) error {
		switch {
		case f.number == fieldEntryCID && f.kind == protowire.BytesType:
			raw = f.value
		case f.kind != protowire.VarintType:
		case f.number == fieldEntryPriority:
			e.Priority = int32(f.num)
		case f.number == fieldEntryCancel:
			cancel = f.num != 0
		case f.number == fieldEntryDontHave:
			e.SendDontHave = f.num != 0
		case f.number == fieldEntryPrice:
			e.PricePerMiB = Amount(f.num)
		case f.number == fieldEntryWantType:
			e.Kind = WantBlock
			if f.num == wantTypeHave {
				e.Kind = WantHave
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if cancel {
		e.Kind = Cancel
	}
	if e.CID, err = castCID(raw); err != nil {
		return err
	}
	d.entries = append(d.entries, e)
	return nil
}

func (d *decoded) presence(b []byte) error {
	if len(d.presences) >= maxPresences {
		return malformed("more than %d presences", maxPresences)
	}
	var (
		p   = Presence{Have: true}
		raw []byte
	)
	err := eachField(b, func(f field) error {
		switch {
		case f.number == fieldPresenceCID && f.kind == protowire.BytesType:
			raw = f.value
		case f.number == fieldPresenceType && f.kind == protowire.VarintType:
			p.Have = f.num != presenceDontHave
		case f.number == fieldPresencePrice && f.kind == protowire.VarintType:
			p.Price = Amount(f.num)
		case f.number == fieldPresenceBytes && f.kind == protowire.VarintType:
			p.Bytes = f.num
		}
		return nil
	})
	if err != nil {
		return err
	}
	if p.CID, err = castCID(raw); err != nil {
		return err
	}
	d.presences = append(d.presences, p)
	return nil
}

func (d *decoded) takeAccount(b []byte) error {
	a := &Account{}
	err := eachField(b, func(f field) error {
		switch {
		case f.kind != protowire.VarintType:
		case f.number == fieldAccountPrice:
			a.PricePerMiB = Amount(f.num)
		case f.number == fieldAccountCredit:
			a.CreditBytes = f.num
		case f.number == fieldAccountOwed:
			a.Owed = Amount(f.num)
		case f.number == fieldAccountSuspended:
			a.Suspended = f.num != 0
		}
		return nil
	})
	d.account = a
	return err
}

func (d *decoded) manifestsOf(b []byte) error {
	if len(d.roots) >= maxManifestRoots {
		return malformed("manifests of more than %d roots are asked for", maxManifestRoots)
	}
	c, err := castCID(b)
	d.roots = append(d.roots, c)
	return err
}

func (d *decoded) manifestsAre(b []byte) error {
	if len(d.manifests) >= maxManifestRoots {
		return malformed("manifests of more than %d roots", maxManifestRoots)
	}
	var m known
	err := eachField(b, func(f field) (err error) {
		switch {
		case f.kind != protowire.BytesType:
		case f.number == fieldManifestsRoot:
			m.root, err = castCID(f.value)
		case f.number == fieldManifestsCIDs:
			if len(m.manifests) >= maxManifestsOfRoot {
				return malformed("more than %d manifests of a root", maxManifestsOfRoot)
			}
			var c cid.Cid
			c, err = castCID(f.value)
			m.manifests = append(m.manifests, c)
		}
		return err
	})
	if err == nil && !m.root.Defined() {
		err = malformed("manifests of no root")
	}
	d.manifests = append(d.manifests, m)
	return err
}

func (d *decoded) voucher(b []byte) error {
	switch {
	case len(d.vouchers) >= maxVouchers:
		return malformed("more than %d vouchers", maxVouchers)
	case len(b) == 0 || len(b) > maxVoucherBytes:
		return malformed("voucher of %d bytes", len(b))
	}
	d.vouchers = append(d.vouchers, bytes.Clone(b))
	return nil
}

func (d *decoded) payload(b []byte) error {
	var (
		raw    rawBlock
		prefix []byte
	)
	err := eachField(b, func(f field) error {
		switch {
		case f.kind != protowire.BytesType:
		case f.number == fieldPayloadPrefix:
			prefix = f.value
		case f.number == fieldPayloadData:
			raw.data = f.value
		}
		return nil
	})
	if err != nil {
		return err
	}
	if raw.prefix, err = parsePrefix(prefix); err != nil {
		return err
	}
	return d.block(raw)
}

func (d *decoded) block(b rawBlock) error {
	switch {
	case len(d.raw) >= maxWireBlocks:
		return malformed("more than %d blocks", maxWireBlocks)
	case len(b.data) > maxBlockBytes:
		d.long = append(d.long, b) // it may be the very block that was asked for: no fault, and no use
		return nil
	}
	b.data = b.data[:len(b.data):len(b.data)]
	d.raw = append(d.raw, b)
	return nil
}

// castCID parses a whole CID, copying it out of b.
func castCID(b []byte) (cid.Cid, error) {
	if len(b) == 0 || len(b) > maxCIDBytes {
		return cid.Undef, malformed("cid of %d bytes", len(b))
	}
	c, err := cid.Cast(b)
	if err != nil {
		return cid.Undef, malformed("cid: %v", err)
	}
	return c, nil
}

// parsePrefix parses a CID prefix and checks that its hash is allowed.
func parsePrefix(b []byte) (cid.Prefix, error) {
	var p cid.Prefix
	var digest uint64
	for _, to := range []*uint64{&p.Version, &p.Codec, &p.MhType, &digest} {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return p, malformed("block prefix: %v", protowire.ParseError(n))
		}
		*to, b = v, b[n:]
	}
	switch {
	case len(b) > 0:
		return p, malformed("block prefix: %d bytes too many", len(b))
	case digest > maxDigestBytes || !hashAllowed(p.MhType, int(digest)):
		return p, malformed("block prefix: hash %#x of %d bytes is not allowed", p.MhType, digest)
	case p.Version > 1 || p.Codec > 1<<62:
		return p, malformed("block prefix: cid version %d, codec %#x", p.Version, p.Codec)
	case p.Version == 0 && (p.MhType != mh.SHA2_256 || digest != sha256Bytes):
		return p, malformed("block prefix: version 0 with hash %#x", p.MhType)
	}
	p.MhLength = int(digest)
	return p, nil
}
