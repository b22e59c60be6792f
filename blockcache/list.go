package blockcache

import (
	"bytes"
	"context"
	"fmt"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// listLook bounds how many entries of the index one transaction of a listing passes over: a long-lived
// transaction keeps the database from compacting away what was deleted.
const listLook = 1024

// List returns up to max blocks that are here, in the order of the index: those that follow after,
// which need not be here itself, or the first ones if it is undefined. There are no more when it
// returns none. The index knows multihashes alone, so every CID is one of version 1 that says raw.
//
// A block that is here from the first call of a walk to the last is returned once. One that comes or
// goes meanwhile may be or may not.
func (s *Store) List(ctx context.Context, after cid.Cid, max int) ([]cid.Cid, error) {
	return s.list(ctx, tagBlock, after, max)
}

// ListPinned is List of the blocks that are pinned and here, in an order of their own.
func (s *Store) ListPinned(ctx context.Context, after cid.Cid, max int) ([]cid.Cid, error) {
	return s.list(ctx, tagPinned, after, max)
}

func (s *Store) list(ctx context.Context, tag byte, after cid.Cid, max int) ([]cid.Cid, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	from := s.ix.k(tag, "")
	if after.Defined() {
		from = s.ix.behind(tag, key(after))
	}
	var out []cid.Cid
	for more := true; more && len(out) < max; {
		var found []string
		var err error
		if found, more, err = s.ix.hashes(ctx, tag, from, max-len(out)); err == nil {
			out, err = s.appendHere(out, found)
		}
		if err != nil {
			return nil, fmt.Errorf("list blocks: %w", err)
		}
		if len(found) > 0 {
			from = s.ix.behind(tag, found[len(found)-1])
		}
	}
	return out, nil
}

// appendHere appends the CIDs of those blocks that can be read now.
func (s *Store) appendHere(out []cid.Cid, found []string) ([]cid.Cid, error) {
	txn := s.ix.db.NewTransaction(false)
	defer txn.Discard()
	for _, k := range found {
		ps, err := s.ix.places(txn, k)
		if err != nil {
			return nil, err
		}
		hash, err := mh.Cast([]byte(k))
		for _, p := range ps {
			if err == nil && s.readable(p, false) {
				out = append(out, cid.NewCidV1(cid.Raw, hash))
				break
			}
		}
	}
	return out, nil
}

// hashes returns up to max different multihashes filed under a tag from a key on, and whether there
// may be more. It passes over a bounded number of entries, and at least to the first hash.
func (x *index) hashes(ctx context.Context, tag byte, from []byte, max int) (found []string, more bool, err error) {
	looked := 0
	err = x.each(ctx, x.k(tag, ""), from, false, func(rest, _ []byte) error {
		hash := rest
		if tag == tagPinned {
			if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
				return nil
			}
			hash = rest[1 : 1+int(rest[0])]
		}
		isNew := len(found) == 0 || found[len(found)-1] != string(hash)
		if looked++; looked > listLook || isNew && len(found) == max {
			more = true
			return errStop
		}
		if isNew {
			found = append(found, string(hash))
		}
		return nil
	})
	return found, more, err
}

// behind is where the entries begin that follow all those of a multihash.
func (x *index) behind(tag byte, hash string) []byte {
	if tag == tagBlock {
		return append(x.k(tag, hash), 0) // another hash may begin with this one
	}
	b := bytes.TrimRight(x.pairKey(tag, hash, ""), "\xff")
	b[len(b)-1]++ // the tag at least is left
	return b
}
