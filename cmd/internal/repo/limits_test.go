package repo

import (
	"strings"
	"testing"
	"time"
)

func TestLimitsHaveNames(t *testing.T) {
	l, err := ParseLimits([]string{"active-peers=7", " total-bytes = 12MiB", "search-every=9s", "serve-max-wants=99", "network-streams-per-peer=5",
		"serve-credit-bytes=1MiB", "network-dial-timeout=3s"})
	if err != nil {
		t.Fatal(err)
	}
	if l.Exchange.ActivePeers != 7 || l.Exchange.TotalBytes != 12<<20 || l.Exchange.SearchEvery != 9*time.Second || l.Serve.MaxWants != 99 ||
		l.Network.StreamsPerPeer != 5 || l.Serve.CreditBytes != 1<<20 || l.Network.DialTimeout != 3*time.Second {
		t.Errorf("read as %+v", l)
	}
	for line, want := range map[string]string{
		"active-peers": "not name=value", "peers=1": "no limit", "active-peers=0": "number from 1", "active-peers=-3": "number from 1",
		"dials=many": "number from 1", "search-every=3": "duration", "search-every=-1s": "duration", "serve-store=1": "no limit", "=": "no limit",
		"total-bytes=9000000000000000000": "number from 1",
	} {
		if _, err := ParseLimits([]string{line}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", line, err)
		}
	}
	for field, want := range map[string]string{"ActivePeers": "active-peers", "DHTPeers": "dht-peers", "X": "x"} {
		if got := LimitName(field); got != want {
			t.Errorf("%s is written %s, want %s", field, got, want)
		}
	}
}
