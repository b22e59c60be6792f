package repo

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestConfigPrecedence(t *testing.T) {
	cfg := Defaults()
	file := "timeout: 1s\nquota: 1GB\nreadahead: 1MiB\nlisten: [/ip4/127.0.0.1/tcp/1, /ip4/127.0.0.1/tcp/2]\nlog-level:\n"
	if err := cfg.applyYAML([]byte(file)); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"HOLDFAST_TIMEOUT": "2s", "HOLDFAST_QUOTA": "2GB", "HOLDFAST_NETWORK": "",
		"HOLDFAST_BOOTSTRAP": "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"}
	if err := cfg.ApplyEnv(func(k string) (string, bool) { v, ok := env[k]; return v, ok }); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Set("timeout", "3s"); err != nil { // what a flag does
		t.Fatal(err)
	}
	if cfg.Timeout != 3*time.Second || cfg.QuotaBytes != 2e9 || cfg.Readahead != 1<<20 || cfg.Network != "local" || cfg.LogLevel != "info" {
		t.Errorf("got %+v", cfg)
	}
	if len(cfg.Listen) != 2 || len(cfg.Bootstrap) != 1 || !slices.Equal(cfg.Addresses(), cfg.Listen) {
		t.Errorf("lists: %v, %v", cfg.Listen, cfg.Bootstrap)
	}
}

func TestWrittenConfigReadsBack(t *testing.T) {
	dir := t.TempDir()
	want := Defaults()
	want.Network, want.Port, want.Listen = "ipfs", 4242, []string{"/ip4/127.0.0.1/tcp/7"}
	want.MetricsListen, want.TempNames, want.Regions = "127.0.0.1:9100", []string{}, []string{"eu", "home"}
	if err := makeConfig(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.TempNames == nil || len(got.TempNames) > 0 || !slices.Equal(got.Regions, want.Regions) {
		t.Errorf("temporary names %q, regions %q", got.TempNames, got.Regions)
	}
	if !slices.Equal(got.Listen, want.Listen) {
		t.Errorf("listen %v", got.Listen)
	}
	got.Listen, want.Listen, got.Bootstrap = nil, nil, nil
	if got.Network != want.Network || got.Port != want.Port || got.CacheBytes != want.CacheBytes || got.QuotaBytes != want.QuotaBytes ||
		got.Timeout != want.Timeout || got.MetricsListen != want.MetricsListen || got.Readahead != want.Readahead {
		t.Errorf("got %+v, want %+v", got, want)
	}
	text, _ := os.ReadFile(filepath.Join(dir, configFile))
	for _, s := range settings {
		if !strings.Contains(string(text), "# "+s.doc+"\n"+s.key+": ") {
			t.Errorf("%s stands there without its comment", s.key)
		}
	}
}

func TestBadValuesNameTheSetting(t *testing.T) {
	for key, value := range map[string]string{
		"network": "moon", "port": "70000", "listen": "localhost", "bootstrap": "/ip4/127.0.0.1/tcp/1", "cache-size": "few",
		"quota": "-1", "timeout": "0s", "readahead": "1 parsec", "metrics-listen": "9100", "log-level": "loud", "announce": "some",
		"temporary-names": "[a", "regions": strings.Repeat("x", 33), "colour": "blue",
	} {
		cfg := Defaults()
		err := cfg.Set(key, value)
		if !errors.Is(err, ErrSetting) || !strings.Contains(err.Error(), key) {
			t.Errorf("%s=%s: %v", key, value, err)
		}
		env := func(k string) (string, bool) { return value, k == setting{key: key}.env() }
		if key == "colour" {
			continue
		}
		if err := cfg.ApplyEnv(env); err == nil || !strings.Contains(err.Error(), "HOLDFAST_") {
			t.Errorf("%s=%s in the environment: %v", key, value, err)
		}
	}
}

func TestAddressesOfTheNetworks(t *testing.T) {
	cfg := Defaults()
	cfg.Port = 4001
	if got := cfg.Addresses(); !slices.Equal(got, []string{"/ip4/127.0.0.1/tcp/4001"}) {
		t.Errorf("local: %v", got)
	}
	cfg.Network = "ipfs"
	if got := cfg.Addresses(); len(got) != 4 || got[0] != "/ip4/0.0.0.0/tcp/4001" {
		t.Errorf("ipfs: %v", got)
	}
}
