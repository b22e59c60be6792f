package node

import (
	"slices"
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/holdfastfs/holdfast/cmd/internal/repo"
)

// TestNetworksOf names the networks of addresses once each, and none of addresses that are not public.
func TestNetworksOf(t *testing.T) {
	var addrs []ma.Multiaddr
	for _, text := range []string{
		"/ip4/203.0.113.7/tcp/4001", "/ip4/203.0.113.200/udp/4001/quic-v1", "/ip6/2001:db8:1:23ff::1/tcp/4001", "/ip4/127.0.0.1/tcp/1",
		"/ip4/192.168.1.2/tcp/1", "/ip6/::1/tcp/1", "/dns4/example.com/tcp/1", "/ip4/198.51.100.1/tcp/1",
	} {
		addrs = append(addrs, ma.StringCast(text))
	}
	got, want := networksOf(addrs), []string{"203.0.113.0/24", "2001:db8:1:2300::/56", "198.51.100.0/24"}
	if !slices.Equal(got, want) {
		t.Errorf("networks are %q, want %q", got, want)
	}
}

// TestNetworkOptions: each value of the setting means something.
func TestNetworkOptions(t *testing.T) {
	for _, value := range []string{"prefer", "strict", "ignore"} {
		cfg := repo.Defaults()
		if err := cfg.Set("networks", value); err != nil {
			t.Fatal(err)
		}
		if _, ok := networkOptions[cfg.Networks]; !ok {
			t.Errorf("networks: %s means nothing", value)
		}
	}
	if _, ok := networkOptions[repo.Defaults().Networks]; !ok {
		t.Error("the default means nothing")
	}
}
