package unixfs

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"
)

// pbNode is a decoded dag-pb node that copies nothing: links are offsets into the block and are parsed when used, so
// that a node of 1,024 links costs one allocation.
type pbNode struct {
	raw     []byte   // the block
	links   []uint32 // where each link's message begins in raw, at its length
	data    []byte   // the Data field, part of raw
	hasData bool
}

// pbLink is one parsed link; its slices are part of the block.
type pbLink struct {
	cid   []byte
	name  []byte
	tsize uint64
}

// decodePB parses a dag-pb block as strictly as the codec's specification asks, except that Data may come first.
func decodePB(raw []byte) (pbNode, error) {
	n := pbNode{raw: raw}
	linksEnded := false
	for pos := 0; pos < len(raw); {
		field, wire, tagLen := protowire.ConsumeTag(raw[pos:])
		if tagLen < 0 {
			return n, fmt.Errorf("dag-pb: %w", protowire.ParseError(tagLen))
		}
		if wire != protowire.BytesType {
			return n, fmt.Errorf("dag-pb: field %d has wire type %d", field, wire)
		}
		start := pos + tagLen
		body, bodyLen := protowire.ConsumeBytes(raw[start:])
		if bodyLen < 0 {
			return n, fmt.Errorf("dag-pb: %w", protowire.ParseError(bodyLen))
		}
		pos = start + bodyLen
		switch field {
		case 1:
			if n.hasData {
				return n, fmt.Errorf("dag-pb: second data field")
			}
			n.data, n.hasData = body, true
			linksEnded = len(n.links) > 0
		case 2:
			if linksEnded {
				return n, fmt.Errorf("dag-pb: links on both sides of data")
			}
			if _, err := parseLink(body); err != nil {
				return n, err
			}
			if n.links == nil {
				n.links = make([]uint32, 0, estimateLinks(len(raw)-start, bodyLen+tagLen))
			}
			n.links = append(n.links, uint32(start))
		default:
			return n, fmt.Errorf("dag-pb: unknown field %d", field)
		}
	}
	return n, nil
}

// estimateLinks guesses how many links follow from the length of the first, so that the slice seldom grows.
func estimateLinks(rest, first int) int {
	return min(rest/first+1, 1<<15)
}

// link parses link i, which decodePB has checked.
func (n *pbNode) link(i int) pbLink {
	body, _ := protowire.ConsumeBytes(n.raw[n.links[i]:])
	l, _ := parseLink(body)
	return l
}

// parseLink reads one PBLink message: Hash, Name, Tsize in this order, Hash required.
func parseLink(b []byte) (pbLink, error) {
	var l pbLink
	last := protowire.Number(0)
	for len(b) > 0 {
		field, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return l, fmt.Errorf("dag-pb link: %w", protowire.ParseError(n))
		}
		b = b[n:]
		if field <= last || field > 3 {
			return l, fmt.Errorf("dag-pb link: field %d after %d", field, last)
		}
		last = field
		if want := linkWireTypes[field]; wire != want {
			return l, fmt.Errorf("dag-pb link: field %d has wire type %d", field, wire)
		}
		switch field {
		case 1:
			l.cid, n = protowire.ConsumeBytes(b)
		case 2:
			l.name, n = protowire.ConsumeBytes(b)
		case 3:
			l.tsize, n = protowire.ConsumeVarint(b)
		}
		if n < 0 {
			return l, fmt.Errorf("dag-pb link: %w", protowire.ParseError(n))
		}
		b = b[n:]
	}
	return l, checkCID(l.cid)
}

var linkWireTypes = [4]protowire.Type{1: protowire.BytesType, 2: protowire.BytesType, 3: protowire.VarintType}

// checkCID accepts what cid.Cast accepts, without making a Cid.
func checkCID(b []byte) error {
	if len(b) == 34 && b[0] == 0x12 && b[1] == 0x20 {
		return nil
	}
	if _, _, _, ok := splitCID(b); ok {
		return nil
	}
	// What is not the common form is left to the library.
	if _, c, err := cid.CidFromBytes(b); err != nil || c.ByteLen() > len(b) {
		return fmt.Errorf("dag-pb link: invalid cid")
	}
	return nil
}

// splitCID takes a version 1 CID of one-byte varints apart: codec, hash function and digest. ok is false for others.
func splitCID(b []byte) (codec, hash byte, digest []byte, ok bool) {
	if len(b) < 4 || b[0] != 1 || b[1]|b[2]|b[3] > 0x7f || int(b[3]) != len(b)-4 {
		return 0, 0, nil, false
	}
	return b[1], b[2], b[4:], true
}

// codecOf returns the codec of a CID's bytes.
func codecOf(b []byte) uint64 {
	if codec, _, _, ok := splitCID(b); ok {
		return uint64(codec)
	}
	if c, err := castCID(b); err == nil {
		return c.Type()
	}
	return 0
}

// castCID makes a Cid of a link's bytes. Bytes behind the CID are ignored, as the codec's reference does.
func castCID(b []byte) (cid.Cid, error) {
	_, c, err := cid.CidFromBytes(b)
	return c, err
}
