package payment

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestViewsAreBounded: peers and channels without end do not fill the memory.
func TestViewsAreBounded(t *testing.T) {
	var v views
	now := time.Unix(1_800_000_000, 0)
	for i := range 2 * maxViews {
		v.seen(ChannelID{byte(i), byte(i >> 8), byte(i >> 16)}, now)
		v.strange(peer.ID(fmt.Sprint("peer ", i)), now)
	}
	if len(v.asked) > maxViews || len(v.unknown) > maxUnknown {
		t.Fatalf("%d channels and %d peers are remembered", len(v.asked), len(v.unknown))
	}
	v.seen(ChannelID{9, 9, 9}, now)
	if v.stale(ChannelID{9, 9, 9}, now.Add(time.Minute-1), time.Minute) || !v.stale(ChannelID{9, 9, 9}, now.Add(time.Minute), time.Minute) {
		t.Error("a minute is not a minute")
	}
	if !v.stale(ChannelID{9, 9, 9}, now.Add(-time.Second), time.Minute) {
		t.Error("a clock that was set back keeps an answer for ever")
	}
}

// TestKeyedLock: one holder a peer, others go on, and nothing is kept when all is idle.
func TestKeyedLock(t *testing.T) {
	var k keyedLock
	unlock, err := k.lock(t.Context(), "a")
	must(t, err)
	other, err := k.lock(t.Context(), "b")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := k.lock(ctx, "a")
		done <- err
	}()
	cancel()
	wantErr(t, <-done, context.Canceled)
	unlock()
	other()
	unlock, err = k.lock(t.Context(), "a")
	must(t, err)
	unlock()
	if len(k.all) != 0 {
		t.Fatalf("%d locks are kept", len(k.all))
	}
}
