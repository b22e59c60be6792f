package seal

import (
	"math"
	"math/big"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

func testPledge(t testing.TB) Pledge {
	t.Helper()
	key, provider := testKey(t, "provider")
	_, writer := testKey(t, "writer")
	p := Pledge{Chunk: testCID(t, 1), SealedRoot: [32]byte{1, 2, 3}, Bytes: 12345, Price: 77,
		Expiry: time.Unix(1_900_000_000, 0), Writer: writer, Provider: provider, At: time.Unix(1_800_000_000, 0)}
	must(t, p.Sign(key))
	return p
}

func TestPledge(t *testing.T) {
	p := testPledge(t)
	must(t, p.Verify())
	must(t, p.Check(Pledge{Chunk: p.Chunk, SealedRoot: p.SealedRoot, Bytes: p.Bytes, Price: p.Price, Expiry: p.Expiry,
		Writer: p.Writer, Provider: p.Provider}))
	b, err := p.Marshal()
	must(t, err)
	q, err := UnmarshalPledge(b)
	must(t, err)
	if !reflect.DeepEqual(p, q) {
		t.Errorf("got %+v back, want %+v", q, p)
	}
	for i := range b {
		bad := append([]byte{}, b...)
		bad[i] ^= 1
		if q, err := UnmarshalPledge(bad); err == nil && q.Verify() == nil {
			t.Errorf("a pledge with byte %d changed is verified", i)
		}
	}
}

// Every field is signed, and every field is compared with what was agreed.
func TestPledgeFields(t *testing.T) {
	key, _ := testKey(t, "provider")
	_, other := testKey(t, "other")
	for name, change := range map[string]func(p *Pledge){
		"chunk":    func(p *Pledge) { p.Chunk = testCID(t, 2) },
		"root":     func(p *Pledge) { p.SealedRoot[31] ^= 1 },
		"bytes":    func(p *Pledge) { p.Bytes++ },
		"price":    func(p *Pledge) { p.Price++ },
		"expiry":   func(p *Pledge) { p.Expiry = p.Expiry.Add(time.Second) },
		"writer":   func(p *Pledge) { p.Writer = other },
		"provider": func(p *Pledge) { p.Provider = other },
		"at":       func(p *Pledge) { p.At = p.At.Add(time.Second) },
		"none":     func(p *Pledge) { p.Signature = nil },
		"long":     func(p *Pledge) { p.Signature = make([]byte, 1000) },
	} {
		want := testPledge(t)
		p := testPledge(t)
		change(&p)
		wantErr(t, p.Verify(), ErrSignature)
		wantErr(t, p.Check(want), ErrSignature)
		if name == "provider" {
			wantErr(t, p.Sign(key), ErrSignature)
			continue
		}
		must(t, p.Sign(key)) // by the right key, about something else
		if name != "at" && name != "none" && name != "long" {
			wantErr(t, p.Check(want), ErrSignature)
		}
	}
}

func TestPledgeForm(t *testing.T) {
	key, _ := testKey(t, "provider")
	for name, change := range map[string]func(p *Pledge){
		"bytes": func(p *Pledge) { p.Bytes = 0 }, "much": func(p *Pledge) { p.Bytes = MaxChunkBytes + 1 },
		"price": func(p *Pledge) { p.Price = math.MaxUint64 }, "time": func(p *Pledge) { p.Expiry = time.Time{} },
		"writer": func(p *Pledge) { p.Writer = "" },
	} {
		p := testPledge(t)
		change(&p)
		if err := p.Sign(key); err == nil {
			t.Errorf("%s: signed", name)
		}
		wantErr(t, p.Verify(), ErrMalformed)
	}
	_, err := UnmarshalPledge(make([]byte, MaxPledgeBytes+1))
	wantErr(t, err, ErrMalformed)
}

func TestPriceOf(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		per   uint64
		bytes int64
		d     time.Duration
		want  uint64
	}{
		{0, 1 << 30, day, 0}, {5, 0, day, 0}, {5, 1 << 20, 0, 0}, {5, 1 << 20, -day, 0},
		{1, 1 << 30, day, 1}, {1, 1, time.Second, 1}, {1024, 1 << 20, day, 1}, {1024, 1<<20 + 1, day, 2}, {1000, 1 << 30, 30 * day, 30000},
		{math.MaxUint64, MaxChunkBytes, 100 * 365 * day, MaxPrice},
	} {
		if got := PriceOf(c.per, c.bytes, c.d); got != c.want {
			t.Errorf("price of %d bytes for %v at %d: got %d, want %d", c.bytes, c.d, c.per, got, c.want)
		}
	}
	r := rand.New(rand.NewPCG(4, 4))
	for range 2000 {
		per, n, d := r.Uint64()>>r.IntN(64), r.Int64N(MaxChunkBytes)+1, time.Duration(r.Int64()>>r.IntN(62))
		x := new(big.Int).Mul(new(big.Int).SetUint64(per), big.NewInt(n))
		x.Mul(x, big.NewInt(int64(d/time.Second)))
		unit := big.NewInt(86400 << 30)
		x.Add(x, new(big.Int).Sub(unit, big.NewInt(1))).Div(x, unit)
		want := uint64(MaxPrice)
		if x.IsUint64() {
			want = min(x.Uint64(), MaxPrice)
		}
		if got := PriceOf(per, n, d); got != want {
			t.Fatalf("price of %d bytes for %v at %d: got %d, want %d", n, d, per, got, want)
		}
	}
}
