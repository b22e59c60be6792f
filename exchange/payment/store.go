package payment

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastfs/holdfast/exchange/payment/durable"
	"github.com/holdfastfs/holdfast/exchange/payment/pb"
)

// Keys below the prefix: a tag, then what it is about.
const (
	tagVersion  = 'v' // → one byte, storeVersion
	tagOut      = 'o' // peer, channel → Record of a channel we pay through
	tagIn       = 'i' // peer, channel → Record of a channel we are paid through
	tagPaid     = 'O' // peer → Totals paid
	tagReceived = 'I' // peer → Totals received
	tagRef      = 'r' // sha2-256 of the ref → Paid
	tagSpent    = 's' // budget → Spending in total
	tagDay      = 'd' // day in four bytes, budget → Spending of the day
)

const storeVersion = 1

func (a *Accounts) key(tag byte, parts ...[]byte) []byte {
	k := append(make([]byte, 0, len(a.cfg.Prefix)+96), a.cfg.Prefix...)
	k = append(k, tag)
	for _, p := range parts {
		k = append(k, p...)
	}
	return k
}

// peerKey writes the peer behind its length, so that no peer's keys begin with another's.
func (a *Accounts) peerKey(tag byte, p peer.ID) []byte {
	return a.key(tag, []byte{byte(len(p))}, []byte(p))
}

func (a *Accounts) channelKey(tag byte, p peer.ID, id ChannelID) []byte {
	return append(a.peerKey(tag, p), id[:]...)
}

func (a *Accounts) refKey(ref []byte) []byte {
	h := sha256.Sum256(ref)
	return a.key(tagRef, h[:])
}

func (a *Accounts) dayKey(day uint32, budget string) []byte {
	return a.key(tagDay, binary.BigEndian.AppendUint32(nil, day), []byte(budget))
}

// dayOf counts UTC days since 1970.
func dayOf(unix int64) uint32 { return uint32(max(0, unix) / int64(24*time.Hour/time.Second)) }

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
	err := item.Value(func(b []byte) error { return proto.Unmarshal(b, m) })
	if err != nil {
		return fmt.Errorf("read entry %q: %w", item.Key(), err)
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

// update commits what fn writes. Where another transaction came between, fn runs again.
func (a *Accounts) update(fn func(txn *badger.Txn) error) error {
	if err := durable.Room(a.cfg.DB, durable.MinFree); err != nil {
		return err
	}
	var err error
	for range 256 {
		if err = a.cfg.DB.Update(fn); !errors.Is(err, badger.ErrConflict) {
			break
		}
	}
	if err == nil {
		a.disk.Committed()
	}
	return err
}

// each calls fn for every entry below a key, in order.
func (a *Accounts) each(txn *badger.Txn, below []byte, values bool, fn func(item *badger.Item) error) error {
	opts := badger.DefaultIteratorOptions
	opts.Prefix = below
	opts.PrefetchValues = values
	it := txn.NewIterator(opts)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		if err := fn(it.Item()); err != nil {
			return err
		}
	}
	return nil
}

// entry is a channel's record and where it stands.
type entry struct {
	tag  byte // tagOut or tagIn
	peer peer.ID
	id   ChannelID
	rec  *pb.Record
}

// channels calls fn for every record of a tag, or of one peer.
func (a *Accounts) channels(txn *badger.Txn, tag byte, p peer.ID, fn func(e entry) error) error {
	below := a.key(tag)
	if p != "" {
		below = a.peerKey(tag, p)
	}
	return a.each(txn, below, true, func(item *badger.Item) error {
		e := entry{tag: tag, rec: &pb.Record{}}
		k := item.Key()[len(a.cfg.Prefix)+1:]
		if len(k) < 1 || len(k) != 1+int(k[0])+len(e.id) {
			return fmt.Errorf("read entry %q: %w", item.Key(), ErrMalformed)
		}
		e.peer = peer.ID(k[1 : 1+int(k[0])])
		copy(e.id[:], k[1+int(k[0]):])
		if err := decode(item, e.rec); err != nil {
			return err
		}
		return fn(e)
	})
}

// live says whether a record may still change.
func live(r *pb.Record) bool { return r.Phase != pb.Record_Closed }

// load checks the version and counts what the limits are about.
func (a *Accounts) load() error {
	if err := a.version(); err != nil {
		return err
	}
	return a.cfg.DB.View(func(txn *badger.Txn) error {
		for tag, n := range map[byte]interface{ Add(int64) int64 }{tagOut: &a.livePaying, tagIn: &a.livePaid} {
			err := a.channels(txn, tag, "", func(e entry) error {
				if live(e.rec) {
					n.Add(1)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return a.each(txn, a.key(tagRef), false, func(*badger.Item) error { a.refs.Add(1); return nil })
	})
}

func (a *Accounts) version() error {
	return a.update(func(txn *badger.Txn) error {
		item, err := txn.Get(a.key(tagVersion))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return txn.Set(a.key(tagVersion), []byte{storeVersion})
		}
		if err != nil {
			return err
		}
		return item.Value(func(b []byte) error {
			if len(b) != 1 || b[0] != storeVersion {
				return fmt.Errorf("records are of form %x, not %d: %w", b, storeVersion, ErrMalformed)
			}
			return nil
		})
	})
}
