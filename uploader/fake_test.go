package uploader

import (
	"crypto/sha256"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// testKeys makes the same keys in every run.
type testKeys struct{ random *rand.ChaCha8 }

func keyOf(t testing.TB, name string) (crypto.PrivKey, peer.ID) {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(testKeys{rand.NewChaCha8(sha256.Sum256([]byte(name)))})
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

// Read implements io.Reader.
func (k testKeys) Read(b []byte) (int, error) { return k.random.Read(b) }

func cidOf(data string) cid.Cid {
	hash, err := mh.Sum([]byte(data), mh.SHA2_256, -1)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.Raw, hash)
}

// fake is what a provider remembers, with all its answers. It is told what is wrong with it.
type fake struct {
	t      testing.TB
	key    crypto.PrivKey
	id     peer.ID
	writer peer.ID
	now    func() time.Time

	free    int64
	price   uint64
	expiry  time.Duration
	skew    time.Duration
	refuse  seal.RefusalCode // of new agreements
	forgery bool             // it signs something else
	liar    bool             // it says that it has all at once
	rotten  bool             // what it shows in audits is wrong
	fillsUp bool             // it has no space for data

	links   map[seal.LinkID]*fakeLink
	channel bool
	calls   map[string]int // requests by kind
	credit  map[seal.LinkID]int
	signed  int // pledges, ever
}

// fakeLink is one agreement. It is replaced, never changed, so that a copy of the map is a copy.
type fakeLink struct {
	chunk   cid.Cid
	bytes   int64
	price   uint64
	expiry  time.Time
	have    seal.Bitmap
	root    [32]byte
	mapped  bool
	whole   bool
	pledge  []byte
	over    bool
	renewal bool
}

func newFake(t testing.TB, name string, writer peer.ID, now func() time.Time) *fake {
	key, id := keyOf(t, name)
	return &fake{
		t: t, key: key, id: id, writer: writer, now: now, free: 1 << 40, expiry: 1000 * 24 * time.Hour,
		links: make(map[seal.LinkID]*fakeLink), calls: make(map[string]int), credit: make(map[seal.LinkID]int),
	}
}

// clone returns a copy for another future.
func (f *fake) clone() *fake {
	c := *f
	c.links, c.calls, c.credit = maps.Clone(f.links), maps.Clone(f.calls), maps.Clone(f.credit)
	return &c
}

func (f *fake) change(id seal.LinkID, fn func(l *fakeLink)) {
	l := *f.links[id]
	fn(&l)
	f.links[id] = &l
}

// answer answers any request but Data, for which see data.
func (f *fake) answer(r seal.Request) seal.Answer {
	switch r := r.(type) {
	case *seal.Quote:
		f.calls["quote"]++
		free := uint64(max(0, f.free))
		if f.refuse == seal.RefusedFull {
			free = 0
		}
		now := f.now().Add(f.skew)
		return &seal.QuoteAnswer{FreeBytes: free, PricePerGiBDay: f.price, MaxExpiry: f.now().Add(f.expiry), Now: now}
	case *seal.StoreRequest:
		f.calls["store"]++
		return f.store(r)
	case *seal.OpenChannel:
		f.calls["channel"]++
		f.channel = true
		return &seal.BasicAnswer{}
	case *seal.Segments:
		f.calls["map"]++
		return f.segments(r)
	case *seal.SignatureRequest:
		f.calls["sign"]++
		return f.sign(r.Link)
	case *seal.Renew:
		f.calls["renew"]++
		return f.renew(r)
	case *seal.Voucher:
		f.calls["voucher"]++
		return f.voucher(r)
	case *seal.Release:
		f.calls["release"]++
		for id, l := range f.links {
			if l.chunk.Equals(r.Chunk) && !l.over {
				f.drop(id)
			}
		}
		return &seal.BasicAnswer{}
	}
	f.t.Errorf("request %T", r)
	return &seal.BasicAnswer{Refusal: seal.Refuse(seal.RefusedMalformed, "")}
}

func (f *fake) drop(id seal.LinkID) {
	if l := f.links[id]; !l.renewal {
		f.free += l.bytes
	}
	f.change(id, func(l *fakeLink) { l.over = true })
}

func (f *fake) store(r *seal.StoreRequest) *seal.StoreAnswer {
	if l := f.links[r.Link]; l != nil {
		if l.over {
			return &seal.StoreAnswer{Refusal: seal.Refuse(seal.RefusedUnknownLink, "it is over")}
		}
		if l.price != r.Price || l.bytes != r.Bytes || !l.expiry.Equal(r.Expiry) || !l.chunk.Equals(r.Chunk) {
			f.t.Errorf("link %s changed what was agreed", r.Link)
		}
		return &seal.StoreAnswer{Deadline: time.Minute, Have: l.have, Stored: l.whole}
	}
	switch {
	case f.refuse != 0:
		return &seal.StoreAnswer{Refusal: seal.Refuse(f.refuse, "not now")}
	case f.now().Add(f.skew).Sub(r.Now).Abs() > seal.MaxClockSkew:
		return &seal.StoreAnswer{Refusal: seal.Refuse(seal.RefusedClockSkew, "clocks differ")}
	case f.free < r.Bytes:
		return &seal.StoreAnswer{Refusal: seal.Refuse(seal.RefusedFull, "no space")}
	case r.Price < seal.PriceOf(f.price, r.Bytes, r.Expiry.Sub(r.Now)):
		return &seal.StoreAnswer{Refusal: seal.Refuse(seal.RefusedPrice, "too little")}
	case r.Expiry.IsZero() || r.Expiry.Unix() <= f.now().Unix() || r.Expiry.Sub(f.now()) > f.expiry:
		return &seal.StoreAnswer{Refusal: seal.Refuse(seal.RefusedExpiry, "no such time")}
	}
	f.free -= r.Bytes
	f.links[r.Link] = &fakeLink{chunk: r.Chunk, bytes: r.Bytes, price: r.Price, expiry: r.Expiry}
	return &seal.StoreAnswer{Deadline: time.Minute}
}

// link returns a link that is not over, or a refusal.
func (f *fake) link(id seal.LinkID) (*fakeLink, *seal.Refusal) {
	l := f.links[id]
	if l == nil || l.over {
		return nil, seal.Refuse(seal.RefusedUnknownLink, "")
	}
	if l.price > 0 && !f.channel {
		return nil, seal.Refuse(seal.RefusedNoChannel, "")
	}
	return l, nil
}

func (f *fake) segments(r *seal.Segments) *seal.SegmentsAnswer {
	l, refusal := f.link(r.Link)
	if refusal != nil {
		return &seal.SegmentsAnswer{Refusal: refusal}
	}
	if l.mapped && l.root != r.Root {
		f.t.Errorf("link %s has another root than before", r.Link)
	}
	f.change(r.Link, func(l *fakeLink) { l.mapped, l.root, l.whole = true, r.Root, l.whole || f.liar })
	if f.links[r.Link].whole {
		return &seal.SegmentsAnswer{}
	}
	return &seal.SegmentsAnswer{Missing: l.have.Missing(seal.SegmentCount(l.bytes))}
}

// data takes segments in.
func (f *fake) data(id seal.LinkID, got seal.Bitmap) *seal.DataAnswer {
	f.calls["data"]++
	l, refusal := f.link(id)
	if refusal == nil && f.fillsUp {
		f.drop(id)
		refusal = seal.Refuse(seal.RefusedFull, "no space for data")
	}
	if refusal != nil {
		return &seal.DataAnswer{Refusal: refusal}
	}
	if !l.mapped {
		f.t.Errorf("data of link %s before its map", id)
	}
	f.change(id, func(l *fakeLink) {
		for i := range l.have {
			l.have[i] |= got[i]
		}
		l.whole = l.whole || l.have.Count() == seal.SegmentCount(l.bytes)
	})
	l = f.links[id]
	return &seal.DataAnswer{Missing: l.have.Missing(seal.SegmentCount(l.bytes))}
}

func (f *fake) sign(id seal.LinkID) *seal.SignatureAnswer {
	l, refusal := f.link(id)
	if refusal == nil && !l.whole {
		refusal = seal.Refuse(seal.RefusedNotStored, "")
	}
	if refusal != nil {
		return &seal.SignatureAnswer{Refusal: refusal}
	}
	if l.pledge == nil {
		for other, o := range f.links {
			if other != id && o.chunk.Equals(l.chunk) && o.pledge != nil && !o.over && o.expiry.After(f.now()) {
				f.t.Errorf("%s is asked for a second pledge of chunk %s: %s beside %s", f.id, l.chunk, id, other)
			}
		}
	}
	return f.pledge(id)
}

func (f *fake) pledge(id seal.LinkID) *seal.SignatureAnswer {
	l := f.links[id]
	if l.pledge == nil {
		f.signed++
		p := seal.Pledge{
			Chunk: l.chunk, SealedRoot: l.root, Bytes: l.bytes, Price: l.price, Expiry: l.expiry,
			Writer: f.writer, Provider: f.id, At: f.now(),
		}
		if f.forgery {
			p.Bytes++
		}
		if err := p.Sign(f.key); err != nil {
			f.t.Fatal(err)
		}
		b, err := p.Marshal()
		if err != nil {
			f.t.Fatal(err)
		}
		f.change(id, func(l *fakeLink) { l.pledge = b })
		l = f.links[id]
	}
	p, err := seal.UnmarshalPledge(l.pledge)
	if err != nil {
		f.t.Fatal(err)
	}
	return &seal.SignatureAnswer{Pledge: p}
}

func (f *fake) renew(r *seal.Renew) *seal.SignatureAnswer {
	if l := f.links[r.Link]; l != nil && !l.over {
		return f.pledge(r.Link)
	}
	for id, l := range f.links {
		if l.chunk.Equals(r.Chunk) && !l.over && l.pledge != nil && l.expiry.After(f.now()) {
			if l.price > 0 && f.credit[id] == 0 {
				f.t.Errorf("link %s is renewed before it was paid", id)
			}
			n := *l
			n.pledge, n.price, n.expiry = nil, r.Price, r.Expiry
			f.links[r.Link] = &n
			f.change(id, func(l *fakeLink) { l.over = true })
			return f.pledge(r.Link)
		}
	}
	return &seal.SignatureAnswer{Refusal: seal.Refuse(seal.RefusedNotStored, "")}
}

func (f *fake) voucher(r *seal.Voucher) *seal.BasicAnswer {
	l, refusal := f.link(r.Link)
	if refusal == nil && l.pledge == nil {
		f.t.Errorf("link %s is paid without a pledge", r.Link)
	}
	if refusal == nil {
		f.credit[r.Link]++
	}
	return &seal.BasicAnswer{Refusal: refusal}
}

// audit says what is wrong with an audit of a chunk.
func (f *fake) audit(chunk cid.Cid) error {
	f.calls["audit"]++
	for _, l := range f.links {
		if l.chunk.Equals(chunk) && !l.over && l.pledge != nil {
			if f.rotten || f.liar {
				return seal.ErrProof
			}
			return nil
		}
	}
	return seal.Refuse(seal.RefusedNotStored, "")
}

// kept returns how many live pledges the provider has, by chunk.
func (f *fake) kept() map[cid.Cid]int {
	n := make(map[cid.Cid]int)
	for _, l := range f.links {
		if !l.over && l.pledge != nil && l.expiry.After(f.now()) {
			n[l.chunk]++
		}
	}
	return n
}
