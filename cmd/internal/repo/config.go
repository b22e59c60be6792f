package repo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/holdfastfs/holdfast/cmd/internal/hint"
	"github.com/holdfastfs/holdfast/fs"
)

// ErrSetting says that a setting has no such name or no such value.
var ErrSetting = errors.New("bad setting")

// Config is the settings of a node. Where a value comes from: flags over HOLDFAST_* variables over
// config.yaml over [Defaults].
type Config struct {
	Network       string        // "local": only peers that are named; "ipfs": the public network
	Port          int           // where the node listens; chosen at init
	Listen        []string      // multiaddrs; empty: what the network and Port say
	Bootstrap     []string      // multiaddrs with /p2p/ to be connected to always; empty: the network's own
	Announce      string        // "roots", "pinned" or "all": which blocks are announced
	CacheBytes    int64         // memory tier, in bytes
	QuotaBytes    uint64        // block store on disk, in bytes
	MinFreeBytes  uint64        // kept free on the disk of the repo, in bytes
	Timeout       time.Duration // within which a read is answered
	Readahead     int64         // most bytes read ahead in one file
	MetricsListen string        // host:port of metrics and status page; empty: none
	LogLevel      string        // debug, info, warn or error

	UploadRate     int64    // bytes a second sent to all peers; 0: no limit
	PeerUploadRate int64    // the same to one peer
	Limits         []string // name=value, as [ParseLimits] reads them

	Provider       bool          // keeps chunks for others
	ProviderQuota  uint64        // of those, in bytes
	StoragePrice   uint64        // asked for a GiB and day, in the ledger's smallest unit
	MaxExpiry      time.Duration // how far ahead a chunk may be kept
	ProviderRegion string        // a label that writers may choose by

	Regions         []string      // labels of providers that are used; empty: any
	TempNames       []string      // under which files in upload directories wait for their rename, as fs.UploadConfig has them
	MaxStoragePrice uint64        // paid to providers for a GiB and day at most
	Networks        string        // "prefer", "strict" or "ignore": whether a stripe's providers lie in different networks
	AuditInterval   time.Duration // within which each link is audited once
	VanishAfter     time.Duration // of silence, until a provider's links have failed

	Price     uint64 // asked of peers for a MiB, in the ledger's smallest unit
	Credit    int64  // bytes that a peer gets before it has paid
	MaxPrice  uint64 // paid for a MiB at most
	Budget    uint64 // paid for one dataset at most
	DayBudget uint64 // paid in a UTC day at most; 0: as much as the datasets' budgets allow
	PerSecond uint64 // what a second saved is worth
	Deposit   uint64 // laid down when a payment channel is opened
	Ledger    string // path of the book of payment channels; empty: one in the user's home
}

// Defaults are the settings where nobody says otherwise.
func Defaults() Config {
	return Config{
		Network:      "local",
		Announce:     "roots",
		CacheBytes:   96 << 20,
		QuotaBytes:   50e9,
		MinFreeBytes: 512 << 20,
		Timeout:      25 * time.Second,
		Readahead:    32 << 20,
		LogLevel:     "info",
		Credit:       8 << 20,
		Deposit:      1_000_000,

		ProviderQuota: 10e9,
		MaxExpiry:     366 * 24 * time.Hour,
		Networks:      "prefer",
		TempNames:     []string{fs.TempEditors, fs.TempRsync},
		AuditInterval: 24 * time.Hour,
		VanishAfter:   6 * time.Hour,
	}
}

// Addresses are the multiaddrs to listen on.
func (c Config) Addresses() []string {
	switch {
	case len(c.Listen) > 0:
		return c.Listen
	case c.Network == "ipfs":
		var all []string
		for _, ip := range []string{"/ip4/0.0.0.0", "/ip6/::"} {
			all = append(all, fmt.Sprintf("%s/tcp/%d", ip, c.Port), fmt.Sprintf("%s/udp/%d/quic-v1", ip, c.Port))
		}
		return all
	default:
		return []string{fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", c.Port)}
	}
}

// ReadConfig reads config.yaml in dir over the defaults. The error names the line.
func ReadConfig(dir string) (Config, error) {
	cfg := Defaults()
	path := filepath.Join(dir, configFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return cfg, nil
	}
	if err != nil {
		return cfg, explain(dir, fmt.Errorf("read settings: %w", err))
	}
	if err := cfg.applyYAML(text); err != nil {
		err = fmt.Errorf("read settings: %s: %w", path, err)
		return cfg, hint.Add(err, "correct it, or delete it: defaults then hold")
	}
	return cfg, nil
}

// applyYAML sets what a yaml mapping of setting to value says.
func (c *Config) applyYAML(text []byte) error {
	var doc map[string]yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("%w: %w", ErrSetting, err)
	}
	for key, node := range doc {
		values, err := yamlValues(node)
		if err != nil {
			return fmt.Errorf("line %d: %s: %w", node.Line, key, err)
		}
		if values == nil {
			continue // "key:" alone leaves the default
		}
		if err := c.Set(key, values...); err != nil {
			return fmt.Errorf("line %d: %w", node.Line, err)
		}
	}
	return nil
}

func yamlValues(n yaml.Node) ([]string, error) {
	switch n.Kind {
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return nil, nil
		}
		return []string{n.Value}, nil
	case yaml.SequenceNode:
		values := make([]string, 0, len(n.Content))
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				return nil, fmt.Errorf("%w: a list of plain values is wanted", ErrSetting)
			}
			values = append(values, item.Value)
		}
		return values, nil
	}
	return nil, fmt.Errorf("%w: a value or a list is wanted", ErrSetting)
}

// ApplyEnv sets what HOLDFAST_* variables say; get is os.LookupEnv. An empty variable counts as unset.
func (c *Config) ApplyEnv(get func(string) (string, bool)) error {
	for _, s := range settings {
		value, ok := get(s.env())
		if !ok || value == "" {
			continue
		}
		if err := c.Set(s.key, splitList(s, value)...); err != nil {
			return fmt.Errorf("environment variable %s: %w", s.env(), err)
		}
	}
	return nil
}
