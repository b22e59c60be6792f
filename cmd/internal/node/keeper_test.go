package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// fakeNetwork is a network whose peers answer or not.
type fakeNetwork struct {
	mu        sync.Mutex
	up        map[peer.ID]bool
	connected map[peer.ID]bool
	dials     []string // "peer at second"
	start     time.Time
}

func newFakeNetwork() *fakeNetwork {
	return &fakeNetwork{up: map[peer.ID]bool{}, connected: map[peer.ID]bool{}, start: time.Now()}
}

func (f *fakeNetwork) Dial(_ context.Context, p peer.AddrInfo) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials = append(f.dials, fmt.Sprintf("%s at %v", string(p.ID), time.Since(f.start)))
	if !f.up[p.ID] {
		return errors.New("connection refused")
	}
	f.connected[p.ID] = true
	return nil
}

func (f *fakeNetwork) Connected(p peer.ID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.connected[p]
}

func (f *fakeNetwork) set(p peer.ID, up, connected bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.up[p], f.connected[p] = up, connected
}

func (f *fakeNetwork) took() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.dials
	f.dials = nil
	return d
}

// keep runs a keeper in a bubble.
func keep(t *testing.T, story func(k *keeper, f *fakeNetwork)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNetwork()
		k := makeKeeper(f, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		story(k, f)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestKeeperBacksOff(t *testing.T) {
	keep(t, func(k *keeper, f *fakeNetwork) {
		k.add(peer.AddrInfo{ID: "a"})
		time.Sleep(100*time.Second + time.Millisecond) // virtual
		want := []string{"a at 0s", "a at 1s", "a at 3s", "a at 7s", "a at 15s", "a at 31s", "a at 1m1s", "a at 1m31s"}
		if got := f.took(); !slices.Equal(got, want) {
			t.Errorf("dialled %v, want %v", got, want)
		}
	})
}

func TestKeeperReconnectsAtOnce(t *testing.T) {
	keep(t, func(k *keeper, f *fakeNetwork) {
		f.set("a", true, false)
		k.add(peer.AddrInfo{ID: "a"})
		time.Sleep(time.Hour)
		if got := f.took(); len(got) != 1 {
			t.Errorf("a connected peer was dialled: %v", got)
		}
		f.set("a", true, false)
		k.look() // what a lost connection does
		synctest.Wait()
		if got := f.took(); !slices.Equal(got, []string{"a at 1h0m0s"}) {
			t.Errorf("after a loss: %v", got)
		}
		f.set("a", false, false)
		k.look()
		time.Sleep(10 * time.Second)
		f.set("a", true, false)
		time.Sleep(redialMax)
		if !f.Connected("a") {
			t.Error("a peer that came back is not connected")
		}
	})
}

func TestKeeperFindsLossesByItself(t *testing.T) {
	keep(t, func(k *keeper, f *fakeNetwork) {
		f.set("a", true, false)
		k.add(peer.AddrInfo{ID: "a"})
		synctest.Wait()
		f.set("a", true, false) // and nobody says so
		time.Sleep(redialMax + time.Second)
		if !f.Connected("a") {
			t.Error("the loss went unnoticed")
		}
	})
}

func TestKeeperForgets(t *testing.T) {
	keep(t, func(k *keeper, f *fakeNetwork) {
		k.add(peer.AddrInfo{ID: "a"})
		k.add(peer.AddrInfo{ID: "b"})
		synctest.Wait()
		k.remove("a")
		f.took()
		time.Sleep(time.Hour)
		for _, dial := range f.took() {
			if dial[0] == 'a' {
				t.Fatalf("a forgotten peer was dialled: %s", dial)
			}
		}
		if got := k.peers(); len(got) != 1 {
			t.Errorf("kept: %v", got)
		}
	})
}

func TestKeeperDialsNewAddressesAtOnce(t *testing.T) {
	keep(t, func(k *keeper, f *fakeNetwork) {
		k.add(peer.AddrInfo{ID: "a"})
		time.Sleep(40 * time.Second) // in the middle of a long pause
		f.set("a", true, false)
		k.add(peer.AddrInfo{ID: "a"})
		synctest.Wait()
		if !f.Connected("a") {
			t.Error("a new address waits for the old one's pause")
		}
	})
}
