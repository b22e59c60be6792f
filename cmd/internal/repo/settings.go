package repo

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	ma "github.com/multiformats/go-multiaddr"
)

// setting is one line of config.yaml, one HOLDFAST_* variable and one flag.
type setting struct {
	key  string
	doc  string
	list bool
	flag bool // given without a value it is true
	set  func(*Config, []string) error
	get  func(Config) string // as it stands in config.yaml
}

func (s setting) env() string {
	return "HOLDFAST_" + strings.ToUpper(strings.ReplaceAll(s.key, "-", "_"))
}

// settings lists them all, in the order of config.yaml.
var settings = []setting{
	{key: "network", doc: "local: only peers that you name; ipfs: the public network, where what you add can be read by anyone",
		set: one(func(c *Config, v string) error { return oneOf(&c.Network, v, "local", "ipfs") }),
		get: func(c Config) string { return c.Network }},
	{key: "port", doc: "where the node listens; chosen when the repo was made, so that its address stays",
		set: one(func(c *Config, v string) error { return parsePort(&c.Port, v) }),
		get: func(c Config) string { return strconv.Itoa(c.Port) }},
	{key: "listen", doc: "multiaddrs to listen on instead of the network's usual ones at that port", list: true,
		set: func(c *Config, v []string) error { return parseAddrs(&c.Listen, v, false) },
		get: func(c Config) string { return yamlList(c.Listen) }},
	{key: "bootstrap", doc: "peers to be connected to always: multiaddrs that end in /p2p/ID; empty: the network's own", list: true,
		set: func(c *Config, v []string) error { return parseAddrs(&c.Bootstrap, v, true) },
		get: func(c Config) string { return yamlList(c.Bootstrap) }},
	{key: "announce", doc: "what others can find at this node: roots that you add or pin, pinned: each of their blocks too, all: each block that is here",
		set: one(func(c *Config, v string) error { return oneOf(&c.Announce, v, "roots", "pinned", "all") }),
		get: func(c Config) string { return c.Announce }},
	{key: "cache-size", doc: "memory for blocks",
		set: one(func(c *Config, v string) error { return parseBytes(&c.CacheBytes, v, 1<<20) }),
		get: func(c Config) string { return humanize.IBytes(uint64(c.CacheBytes)) }},
	{key: "quota", doc: "most bytes of blocks on disk; beyond it the least recently used that are not pinned go",
		set: one(func(c *Config, v string) error { return parseBytes(&c.QuotaBytes, v, 16<<20) }),
		get: func(c Config) string { return humanize.Bytes(c.QuotaBytes) }},
	{key: "min-free", doc: "kept free on the disk",
		set: one(func(c *Config, v string) error { return parseBytes(&c.MinFreeBytes, v, 0) }),
		get: func(c Config) string { return humanize.IBytes(c.MinFreeBytes) }},
	{key: "timeout", doc: "a read is answered within it, with data or an error",
		set: one(func(c *Config, v string) error { return parseDuration(&c.Timeout, v) }),
		get: func(c Config) string { return c.Timeout.String() }},
	{key: "readahead", doc: "most bytes read ahead of a sequential reader, a file",
		set: one(func(c *Config, v string) error { return parseBytes(&c.Readahead, v, 0) }),
		get: func(c Config) string { return humanize.IBytes(uint64(c.Readahead)) }},
	{key: "upload-rate", doc: "most bytes a second sent to all peers together; 0: no limit",
		set: one(func(c *Config, v string) error { return parseBytes(&c.UploadRate, v, 0) }),
		get: func(c Config) string { return humanize.IBytes(uint64(c.UploadRate)) }},
	{key: "peer-upload-rate", doc: "most bytes a second sent to one peer; 0: no limit",
		set: one(func(c *Config, v string) error { return parseBytes(&c.PeerUploadRate, v, 0) }),
		get: func(c Config) string { return humanize.IBytes(uint64(c.PeerUploadRate)) }},
	{key: "limits", doc: "name=value each, as holdfast status --json lists them under limits: active-peers=25, dials=8, serve-peer-bytes=4MiB", list: true,
		set: func(c *Config, v []string) error { return parseLimits(&c.Limits, v) },
		get: func(c Config) string { return yamlList(c.Limits) }},
	{key: "provider", doc: "keep sealed chunks for other nodes and sign for them", flag: true,
		set: one(func(c *Config, v string) error { return parseBool(&c.Provider, v) }),
		get: func(c Config) string { return strconv.FormatBool(c.Provider) }},
	{key: "provider-quota", doc: "most bytes of chunks kept for others, beside quota",
		set: one(func(c *Config, v string) error { return parseBytes(&c.ProviderQuota, v, 64<<20) }),
		get: func(c Config) string { return humanize.Bytes(c.ProviderQuota) }},
	{key: "storage-price", doc: "asked of writers for a GiB and day, in the ledger's smallest unit; 0: free",
		set: one(func(c *Config, v string) error { return parseAmount(&c.StoragePrice, v) }),
		get: func(c Config) string { return strconv.FormatUint(c.StoragePrice, 10) }},
	{key: "max-storage-price", doc: "most that is paid to providers for a GiB and day, in the ledger's smallest unit; 0: nothing",
		set: one(func(c *Config, v string) error { return parseAmount(&c.MaxStoragePrice, v) }),
		get: func(c Config) string { return strconv.FormatUint(c.MaxStoragePrice, 10) }},
	{key: "audit-interval", doc: "each chunk that is with a provider is asked about once within it, at a random time, such as 12h or 1d",
		set: one(func(c *Config, v string) error { return parseDays(&c.AuditInterval, v) }),
		get: func(c Config) string { return c.AuditInterval.String() }},
	{key: "vanish-after", doc: "chunks of a provider that is silent for so long are placed with others",
		set: one(func(c *Config, v string) error { return parseDays(&c.VanishAfter, v) }),
		get: func(c Config) string { return c.VanishAfter.String() }},
	{key: "networks", doc: "shards of a stripe and copies of a chunk go to providers in different /24 (IPv6: /56) networks: prefer, while there are enough; strict, or nowhere; ignore",
		set: one(func(c *Config, v string) error { return oneOf(&c.Networks, v, "prefer", "strict", "ignore") }),
		get: func(c Config) string { return c.Networks }},
	{key: "regions", doc: "providers with one of these labels keep what is uploaded; empty: any provider", list: true,
		set: func(c *Config, v []string) error { return parseLabels(&c.Regions, v) },
		get: func(c Config) string { return yamlList(c.Regions) }},
	{key: "temporary-names", doc: "patterns of names under which a new file in an upload directory waits for its rename; @editors: those of vim and emacs; @rsync: .NAME.XXXXXX", list: true,
		set: func(c *Config, v []string) error { return parsePatterns(&c.TempNames, v) },
		get: func(c Config) string { return yamlList(c.TempNames) }},
	{key: "max-expiry", doc: "how long ahead a chunk is kept at most, such as 720h or 30d",
		set: one(func(c *Config, v string) error { return parseDays(&c.MaxExpiry, v) }),
		get: func(c Config) string { return c.MaxExpiry.String() }},
	{key: "region", doc: "a label of up to 32 bytes that writers may choose by",
		set: one(func(c *Config, v string) error { return parseLabel(&c.ProviderRegion, v) }),
		get: func(c Config) string { return strconv.Quote(c.ProviderRegion) }},
	{key: "price", doc: "asked of peers for each MiB they get, in the ledger's smallest unit; 0: free",
		set: one(func(c *Config, v string) error { return parseAmount(&c.Price, v) }),
		get: func(c Config) string { return strconv.FormatUint(c.Price, 10) }},
	{key: "credit", doc: "bytes that a peer gets before it has paid for them, where there is a price",
		set: one(func(c *Config, v string) error { return parseBytes(&c.Credit, v, 1<<20) }),
		get: func(c Config) string { return humanize.IBytes(uint64(c.Credit)) }},
	{key: "max-price", doc: "most that is paid to peers for a MiB, in the ledger's smallest unit; 0: nothing is paid",
		set: one(func(c *Config, v string) error { return parseAmount(&c.MaxPrice, v) }),
		get: func(c Config) string { return strconv.FormatUint(c.MaxPrice, 10) }},
	{key: "budget", doc: "most that is paid for the blocks of one root",
		set: one(func(c *Config, v string) error { return parseAmount(&c.Budget, v) }),
		get: func(c Config) string { return strconv.FormatUint(c.Budget, 10) }},
	{key: "day-budget", doc: "most that is paid for blocks in a day (UTC); 0: what the budgets of the roots allow",
		set: one(func(c *Config, v string) error { return parseAmount(&c.DayBudget, v) }),
		get: func(c Config) string { return strconv.FormatUint(c.DayBudget, 10) }},
	{key: "per-second", doc: "what a second saved is worth; 0: peers that want money are asked only for what others don't give",
		set: one(func(c *Config, v string) error { return parseAmount(&c.PerSecond, v) }),
		get: func(c Config) string { return strconv.FormatUint(c.PerSecond, 10) }},
	{key: "deposit", doc: "laid down when a payment channel to a peer is opened; what is not spent comes back",
		set: one(func(c *Config, v string) error { return parseAmount(&c.Deposit, v) }),
		get: func(c Config) string { return strconv.FormatUint(c.Deposit, 10) }},
	{key: "ledger", doc: "file that the nodes of this machine keep payment channels in: bookkeeping, not money; empty: ~/.holdfast-ledger.json",
		set: one(func(c *Config, v string) error { c.Ledger = v; return nil }),
		get: func(c Config) string { return strconv.Quote(c.Ledger) }},
	{key: "metrics-listen", doc: "host:port where Prometheus metrics and a status page are served; empty: nowhere",
		set: one(func(c *Config, v string) error { return parseHostPort(&c.MetricsListen, v) }),
		get: func(c Config) string { return strconv.Quote(c.MetricsListen) }},
	{key: "log-level", doc: "debug, info, warn or error",
		set: one(func(c *Config, v string) error { return oneOf(&c.LogLevel, v, "debug", "info", "warn", "error") }),
		get: func(c Config) string { return c.LogLevel }},
}

// Key describes a setting.
type Key struct {
	Name string // as in config.yaml and, with two dashes, on the command line
	Doc  string
	List bool // it takes any number of values
	Flag bool // given without a value it is true
}

// Keys lists all settings.
func Keys() (keys []Key) {
	for _, s := range settings {
		keys = append(keys, Key{Name: s.key, Doc: s.doc, List: s.list, Flag: s.flag})
	}
	return keys
}

// Set gives the setting key a value, or values where it is a list.
func (c *Config) Set(key string, values ...string) error {
	for _, s := range settings {
		if s.key == key {
			if err := s.set(c, values); err != nil {
				return fmt.Errorf("%w: %s: %w", ErrSetting, key, err)
			}
			return nil
		}
	}
	return fmt.Errorf("%w: %q is not known", ErrSetting, key)
}

// Level is LogLevel for slog.
func (c Config) Level() slog.Level {
	var level slog.Level
	if level.UnmarshalText([]byte(c.LogLevel)) != nil {
		return slog.LevelInfo
	}
	return level
}

// makeConfig writes config.yaml unless it is there; a port is chosen where cfg has none.
func makeConfig(dir string, cfg Config) error {
	path := filepath.Join(dir, configFile)
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		return err
	}
	if cfg.Port == 0 && len(cfg.Listen) == 0 {
		port, err := freePort()
		if err != nil {
			return fmt.Errorf("choose a port: %w", err)
		}
		cfg.Port = port
	}
	var b strings.Builder
	b.WriteString("# Settings of this Holdfast node. Flags and HOLDFAST_* variables come first; a missing line is the default.\n")
	for _, s := range settings {
		fmt.Fprintf(&b, "\n# %s\n%s: %s\n", s.doc, s.key, s.get(cfg))
	}
	return writeFile(path, []byte(b.String()), 0o600)
}

// Ports that repos get: above those of well-known services, and below those that kernels give to connections, as one
// would be taken while the node is not running (Linux: 32768 to 60999, IANA: from 49152).
const (
	lowestPort  = 10_000
	highestPort = 32_767
)

// freePort finds a loopback port that is free for TCP and UDP.
func freePort() (int, error) {
	var last error
	for range 100 {
		port := lowestPort + rand.IntN(highestPort-lowestPort+1)
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		tcp, err := net.Listen("tcp4", addr)
		if err != nil {
			last = err
			continue
		}
		udp, err := net.ListenPacket("udp4", addr)
		tcp.Close()
		if err == nil {
			udp.Close()
			return port, nil
		}
		last = err
	}
	return 0, last
}

func splitList(s setting, value string) []string {
	if !s.list {
		return []string{value}
	}
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' })
}

func yamlList(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = strconv.Quote(v)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func one(set func(*Config, string) error) func(*Config, []string) error {
	return func(c *Config, values []string) error {
		if len(values) != 1 {
			return fmt.Errorf("one value is wanted, not %d", len(values))
		}
		return set(c, strings.TrimSpace(values[0]))
	}
}

func oneOf(dst *string, v string, allowed ...string) error {
	if !slices.Contains(allowed, v) {
		return fmt.Errorf("%q is none of %s", v, strings.Join(allowed, ", "))
	}
	*dst = v
	return nil
}

func parsePort(dst *int, v string) error {
	port, err := strconv.Atoi(v)
	if err != nil || port < 0 || port > 65535 {
		return fmt.Errorf("%q is not a port", v)
	}
	*dst = port
	return nil
}

func parseBytes[T int64 | uint64](dst *T, v string, least uint64) error {
	n, err := humanize.ParseBytes(v)
	if err != nil || n > 1<<62 {
		return fmt.Errorf("%q is not a size such as 96MiB or 50GB", v)
	}
	if n < least {
		return fmt.Errorf("%q is too small: at least %s", v, humanize.IBytes(least))
	}
	*dst = T(n)
	return nil
}

func parseAmount(dst *uint64, v string) error {
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil {
		return fmt.Errorf("%q is not an amount: a whole number of the ledger's smallest unit", v)
	}
	*dst = n
	return nil
}

func parseLimits(dst *[]string, values []string) error {
	if _, err := ParseLimits(values); err != nil {
		return err
	}
	*dst = slices.Clone(values)
	return nil
}

func parseBool(dst *bool, v string) error {
	b, err := strconv.ParseBool(v)
	if err != nil {
		return fmt.Errorf("%q is neither true nor false", v)
	}
	*dst = b
	return nil
}

// parseDays reads a duration that may be given in days.
func parseDays(dst *time.Duration, v string) error {
	if days, ok := strings.CutSuffix(v, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n > 0 {
			*dst = time.Duration(n) * 24 * time.Hour
			return nil
		}
	}
	return parseDuration(dst, v)
}

func parseLabel(dst *string, v string) error {
	if len(v) > 32 || !utf8.ValidString(v) {
		return fmt.Errorf("%q is no label of up to 32 bytes", v)
	}
	*dst = v
	return nil
}

func parseLabels(dst *[]string, values []string) error {
	for _, v := range values {
		if err := parseLabel(new(string), v); err != nil || v == "" {
			return fmt.Errorf("%q is no label of 1 to 32 bytes", v)
		}
	}
	*dst = slices.Clone(values)
	return nil
}

// parsePatterns reads patterns of names. None is another value than no value.
func parsePatterns(dst *[]string, values []string) error {
	for _, v := range values {
		if _, err := path.Match(v, ""); err != nil || v == "" || strings.Contains(v, "/") {
			return fmt.Errorf("%q is no pattern of names such as *.part", v)
		}
	}
	*dst = append([]string{}, values...)
	return nil
}

// ParseDuration reads a duration that may be given in days, such as 36h or 30d.
func ParseDuration(v string) (d time.Duration, err error) {
	err = parseDays(&d, v)
	return d, err
}

// ParseBytes reads a size such as 16MiB.
func ParseBytes(v string) (n int64, err error) {
	err = parseBytes(&n, v, 0)
	return n, err
}

func parseDuration(dst *time.Duration, v string) error {
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is not a duration such as 25s", v)
	}
	*dst = d
	return nil
}

func parseHostPort(dst *string, v string) error {
	if v != "" {
		_, port, err := net.SplitHostPort(v)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return fmt.Errorf("%q is not host:port", v)
		}
	}
	*dst = v
	return nil
}

func parseAddrs(dst *[]string, values []string, withPeer bool) error {
	for _, v := range values {
		addr, err := ma.NewMultiaddr(v)
		if err != nil {
			return fmt.Errorf("%q is not a multiaddr", v)
		}
		if _, err := addr.ValueForProtocol(ma.P_P2P); withPeer && err != nil {
			return fmt.Errorf("%q does not end in /p2p/ID", v)
		}
	}
	*dst = slices.Clone(values)
	return nil
}
