package exchange

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

func TestNewRefusesWhatCannotWork(t *testing.T) {
	net := newSimNet()
	good := Config{Network: net, Providers: net, Store: newSimStore()}
	for name, spoil := range map[string]func(*Config){
		"no network":     func(c *Config) { c.Network = nil },
		"no providers":   func(c *Config) { c.Providers = nil },
		"no store":       func(c *Config) { c.Store = nil },
		"negative limit": func(c *Config) { c.Limits.Dials = -1 },
		"least > most":   func(c *Config) { c.Limits.TimeoutMin = time.Hour },
	} {
		c := good
		spoil(&c)
		if _, err := New(c); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
}

// TestAnsweredWithoutTheNetwork: identity CIDs and empty blocks are never asked for.
func TestAnsweredWithoutTheNetwork(t *testing.T) {
	net := newSimNet()
	x, err := New(Config{Network: net, Providers: net, Store: newSimStore()})
	if err != nil {
		t.Fatal(err)
	}
	inline, err := cid.Prefix{Version: 1, Codec: cid.Raw, MhType: multihash.IDENTITY, MhLength: -1}.Sum([]byte("inline"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := x.Fetch(t.Context(), Want{CID: inline}); err != nil || string(b.RawData()) != "inline" {
		t.Errorf("identity: %v, %v", b, err)
	}
	for _, prefix := range []cid.Prefix{
		{Version: 1, Codec: cid.Raw, MhType: multihash.SHA2_256, MhLength: -1},
		{Version: 0, Codec: cid.DagProtobuf, MhType: multihash.SHA2_256, MhLength: -1},
		{Version: 1, Codec: cid.DagProtobuf, MhType: multihash.BLAKE2B_MIN + 31, MhLength: -1},
	} {
		empty, err := prefix.Sum(nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := x.Fetch(t.Context(), Want{CID: empty}); err != nil || len(b.RawData()) != 0 || !b.Cid().Equals(empty) {
			t.Errorf("empty %v: %v, %v", prefix, b, err)
		}
	}
	if _, err := x.Fetch(t.Context(), Want{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("undefined: %v", err)
	}
	for _, weak := range []cid.Prefix{
		{Version: 1, Codec: cid.GitRaw, MhType: multihash.SHA1, MhLength: -1},
		{Version: 1, Codec: cid.Raw, MhType: multihash.SHA2_256, MhLength: 8},
	} {
		c, err := weak.Sum([]byte("weak"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.Fetch(t.Context(), Want{CID: c}); !errors.Is(err, ErrInvalid) {
			t.Errorf("weak hash %v: %v", weak, err)
		}
	}
}

// TestManyWantsWait: with as many callers as allowed, one more waits, and no longer than it likes.
func TestManyWantsWait(t *testing.T) {
	simulate(t, Limits{Wants: 10}, func(s *sim) {
		ctx, stop := context.WithCancel(s.ctx)
		ended := make(chan error, 10)
		for i := range 10 {
			go func() {
				_, err := s.Fetch(ctx, Want{CID: leaf(i, 10).Cid()})
				ended <- err
			}()
		}
		synctest.Wait()
		more := leaf(10, 10)
		s.net.add("p", more).connect()
		if _, err := s.fetch(Want{CID: more.Cid()}, time.Second); !errors.Is(err, ErrTimeout) {
			t.Errorf("one more: %v", err)
		}
		stop()
		for range 10 {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		s.mustFetch(Want{CID: more.Cid()}, time.Second)
	})
}

type announcer struct{ err error }

func (a announcer) Announce(context.Context, cid.Cid) error { return a.err }

func TestAnnounceGoesToTheAnnouncer(t *testing.T) {
	net := newSimNet()
	c := leaf(1, 1).Cid()
	x, err := New(Config{Network: net, Providers: net, Store: newSimStore()})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Announce(t.Context(), c); err != nil {
		t.Error(err)
	}
	bad := errors.New("nobody to tell")
	if x, err = New(Config{Network: net, Providers: net, Store: newSimStore(), Announcer: announcer{bad}}); err != nil {
		t.Fatal(err)
	}
	if err := x.Announce(t.Context(), c); !errors.Is(err, bad) {
		t.Errorf("%v", err)
	}
}
