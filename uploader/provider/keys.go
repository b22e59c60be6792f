package provider

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// copyID names a copy for all time; it is random.
type copyID [16]byte

// name is that of the copy's file.
func (id copyID) name() string { return hex.EncodeToString(id[:]) }

// Keys below the prefix: a tag, then what it is about. Peers, CIDs and hashes stand behind their length.
const (
	tagRun      = 'r' // → Run, of the process that used the records last
	tagCopy     = 'c' // copy → Copy
	tagLink     = 'l' // writer, link → LinkRef
	tagChunk    = 'x' // chunk, writer, copy → nothing
	tagBlock    = 'b' // multihash, copy → offset and length
	tagDue      = 't' // time, copy → nothing; one a copy, when it is to be looked at
	tagForget   = 'g' // time, writer, link → nothing; one a tombstone
	tagNotice   = 'd' // writer, chunk → Notice
	tagWriter   = 'w' // writer → Writer
	tagAnnounce = 'n' // time, chunk → nothing; one a chunk
	tagTold     = 'N' // chunk → time of its entry under tagAnnounce
)

func (p *Provider) key(tag byte, parts ...[]byte) []byte {
	k := make([]byte, 0, len(p.cfg.Prefix)+128)
	k = append(append(k, p.cfg.Prefix...), tag)
	for _, part := range parts {
		k = append(k, part...)
	}
	return k
}

// sized puts a length before b, so that no key of one begins with another's. Callers keep b under 256 bytes.
func sized(b []byte) []byte { return append([]byte{byte(len(b))}, b...) }

func peerPart(p peer.ID) []byte      { return sized([]byte(p)) }
func chunkPart(chunk cid.Cid) []byte { return sized(chunk.Bytes()) }
func timePart(unix int64) []byte     { return binary.BigEndian.AppendUint64(nil, uint64(max(0, unix))) }

func (p *Provider) copyKey(id copyID) []byte { return p.key(tagCopy, id[:]) }

func (p *Provider) linkKey(writer peer.ID, id seal.LinkID) []byte {
	return p.key(tagLink, peerPart(writer), id[:])
}

func (p *Provider) chunkKey(chunk cid.Cid, writer peer.ID, id copyID) []byte {
	return p.key(tagChunk, chunkPart(chunk), peerPart(writer), id[:])
}

func (p *Provider) noticeKey(writer peer.ID, chunk cid.Cid) []byte {
	return p.key(tagNotice, peerPart(writer), chunkPart(chunk))
}

func (p *Provider) writerKey(writer peer.ID) []byte { return p.key(tagWriter, peerPart(writer)) }

func (p *Provider) dueKey(unix int64, id copyID) []byte { return p.key(tagDue, timePart(unix), id[:]) }

func (p *Provider) blockKey(hash mh.Multihash, id copyID) []byte {
	return p.key(tagBlock, sized(hash), id[:])
}

// get reads one entry into m and says whether it is there.
func get(txn *badger.Txn, key []byte, m proto.Message) (bool, error) {
	item, err := txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, decode(item, m)
}

func decode(item *badger.Item, m proto.Message) error {
	if err := item.Value(func(b []byte) error { return proto.Unmarshal(b, m) }); err != nil {
		return fmt.Errorf("read record %x: %w", item.Key(), err)
	}
	return nil
}

func put(txn *badger.Txn, key []byte, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return txn.Set(key, b)
}

// each calls fn for every entry below a key, in order, until fn returns false or an error.
func each(txn *badger.Txn, below []byte, values bool, fn func(item *badger.Item, rest []byte) (bool, error)) error {
	opts := badger.DefaultIteratorOptions
	opts.Prefix = below
	opts.PrefetchValues = values
	it := txn.NewIterator(opts)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		if more, err := fn(it.Item(), it.Item().Key()[len(below):]); err != nil || !more {
			return err
		}
	}
	return nil
}

// commit writes what fn sets, and returns an error that wraps ErrFull where there is no room. Nothing
// else writes below the prefix, and the locks keep writers of one key apart, so conflicts do not last.
func (p *Provider) commit(fn func(txn *badger.Txn) error) error { return p.commitIf(minDBFree, fn) }

// commitEnd is commit for what ends links and gives space back.
func (p *Provider) commitEnd(fn func(txn *badger.Txn) error) error {
	return p.commitIf(minDBFreeToEnd, fn)
}

func (p *Provider) commitIf(least uint64, fn func(txn *badger.Txn) error) error {
	if err := p.hasRoom(least); err != nil {
		return err
	}
	if err := p.step("commit"); err != nil {
		return err
	}
	var err error
	for range 64 {
		if err = p.cfg.DB.Update(fn); !errors.Is(err, badger.ErrConflict) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return p.step("committed")
}

// sync returns when all that was committed before is on the disk.
func (p *Provider) sync() error {
	if err := p.step("sync"); err != nil {
		return err
	}
	if err := p.disk.Sync(); err != nil {
		return err
	}
	return p.step("synced")
}
