package unixfs

import (
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/boxo/ipld/unixfs/pb"
	"google.golang.org/protobuf/encoding/protowire"
)

// fsData is a decoded UnixFS Data message. Its slices are part of the block.
type fsData struct {
	kind       pb.Data_DataType
	data       []byte
	hasSize    bool
	size       uint64
	blockSizes []uint64
	hashType   uint64
	fanout     uint64
	hasMode    bool
	mode       uint32
	hasTime    bool
	seconds    int64
	nanos      uint32
}

var errNoType = errors.New("unixfs: no type")

// decodeFS parses a UnixFS Data message with the rules of protobuf: unknown fields are skipped, of repeated scalars the
// last counts, packed block sizes are read too. links bounds the number of block sizes.
func decodeFS(b []byte, links int) (fsData, error) {
	var d fsData
	hasType := false
	for len(b) > 0 {
		field, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return d, fmt.Errorf("unixfs: %w", protowire.ParseError(n))
		}
		val := b[n:]
		n = protowire.ConsumeFieldValue(field, wire, val)
		if n < 0 {
			return d, fmt.Errorf("unixfs: %w", protowire.ParseError(n))
		}
		b, val = val[n:], val[:n]
		var err error
		switch wire {
		case protowire.VarintType:
			v, _ := protowire.ConsumeVarint(val)
			if field == 1 {
				d.kind, hasType = pb.Data_DataType(int32(v)), true
				continue
			}
			err = d.setNumber(field, v, links)
		case protowire.BytesType:
			v, _ := protowire.ConsumeBytes(val)
			err = d.setBytes(field, v, links)
		}
		if err != nil {
			return d, err
		}
	}
	if !hasType {
		return d, errNoType
	}
	return d, nil
}

func (d *fsData) setNumber(field protowire.Number, v uint64, links int) error {
	switch field {
	case 3:
		d.size, d.hasSize = v, true
	case 4:
		return d.addBlockSize(v, links)
	case 5:
		d.hashType = v
	case 6:
		d.fanout = v
	case 7:
		d.mode, d.hasMode = uint32(v), true
	}
	return nil
}

func (d *fsData) setBytes(field protowire.Number, v []byte, links int) error {
	switch field {
	case 2:
		d.data = v
	case 4:
		for len(v) > 0 {
			size, n := protowire.ConsumeVarint(v)
			if n < 0 {
				return fmt.Errorf("unixfs: block sizes: %w", protowire.ParseError(n))
			}
			if err := d.addBlockSize(size, links); err != nil {
				return err
			}
			v = v[n:]
		}
	case 8:
		return d.setTime(v)
	}
	return nil
}

func (d *fsData) addBlockSize(v uint64, links int) error {
	if len(d.blockSizes) == links {
		return fmt.Errorf("unixfs: more block sizes than links (%d)", links)
	}
	if d.blockSizes == nil {
		d.blockSizes = make([]uint64, 0, links)
	}
	d.blockSizes = append(d.blockSizes, v)
	return nil
}

func (d *fsData) setTime(b []byte) error {
	for len(b) > 0 {
		field, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("unixfs: mtime: %w", protowire.ParseError(n))
		}
		val := b[n:]
		n = protowire.ConsumeFieldValue(field, wire, val)
		if n < 0 {
			return fmt.Errorf("unixfs: mtime: %w", protowire.ParseError(n))
		}
		b = val[n:]
		switch {
		case field == 1 && wire == protowire.VarintType:
			v, _ := protowire.ConsumeVarint(val)
			d.seconds, d.hasTime = int64(v), true
		case field == 2 && wire == protowire.Fixed32Type:
			d.nanos, _ = protowire.ConsumeFixed32(val)
		}
	}
	if !d.hasTime {
		return errors.New("unixfs: mtime without seconds")
	}
	return nil
}

// The years 1 and 9999: what the format allows.
const minSeconds, maxSeconds = -62135596800, 253402300799

// modTime returns the stated time, or the zero time if there is none or it is out of the format's range.
func (d *fsData) modTime() time.Time {
	if !d.hasTime || d.nanos > 999_999_999 || d.seconds < minSeconds || d.seconds > maxSeconds {
		return time.Time{}
	}
	return time.Unix(d.seconds, int64(d.nanos))
}
