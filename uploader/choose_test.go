package uploader

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

func TestNetworkOf(t *testing.T) {
	for addr, want := range map[string]string{
		"203.0.113.77": "203.0.113.0/24", "::ffff:203.0.113.77": "203.0.113.0/24", "2001:db8:1:23ff::1": "2001:db8:1:2300::/56",
		"127.0.0.1": "", "10.1.2.3": "", "::1": "", "fe80::1": "", "fd00::1": "", "0.0.0.0": "",
	} {
		if got := NetworkOf(netip.MustParseAddr(addr)); got != want {
			t.Errorf("network of %s is %q, want %q", addr, got, want)
		}
	}
	if got := NetworkOf(netip.Addr{}); got != "" {
		t.Errorf("network of nothing is %q", got)
	}
}

// TestNetworks places three columns with providers of which three share a network.
func TestNetworks(t *testing.T) {
	for option, want := range map[Networks]string{
		NetworksPrefer: "uploaded", NetworksStrict: "uploading",
	} {
		for alone := range 3 { // providers in networks of their own
			w := newWorld(t, uint64(alone), 3+alone)
			w.terms.networks = option
			w.reload()
			for i := range w.found {
				w.found[i].Networks = []string{fmt.Sprint("net-", max(0, i-2))}
			}
			w.step(candidatesEvent{w.found})
			f := testFile("f", Policy{}, columns("g", 3))
			w.step(fileEvent{f})
			w.settle()
			state := w.status(f).State.String()
			if alone == 2 { // enough for both
				want = "uploaded"
			}
			if state != want {
				t.Errorf("option %d, %d networks: file is %s, want %s", option, alone+1, state, want)
			}
			seen := make(map[string]int)
			for _, l := range w.linksIn(LinkSigned) {
				seen[l.provider.networks[0]]++
			}
			if option == NetworksStrict && seen["net-0"] > 1 || alone == 2 && len(seen) != 3 {
				t.Errorf("option %d, %d networks: links are in %v", option, alone+1, seen)
			}
		}
	}
}

// TestWeights: those that failed before are chosen seldom, and still sometimes.
func TestWeights(t *testing.T) {
	w := newWorld(t, 1, 2)
	w.step(candidatesEvent{w.found})
	bad := w.m.providers[w.order[0]]
	bad.score = 0.05
	for _, p := range w.m.known {
		p.quoted, p.quote = true, seal.QuoteAnswer{FreeBytes: 1 << 40, MaxExpiry: testStart.AddDate(10, 0, 0), Now: testStart}
	}
	c := &chunk{id: cidOf("c"), bytes: 1}
	drawn := make(map[peer.ID]int)
	for range 1000 {
		drawn[w.m.choose(c, demand{links: 1, target: testStart.Unix() + 1}).id]++
	}
	if n := drawn[bad.id]; n < 50 || n > 300 {
		t.Errorf("a provider with a bad past was chosen %d times of 1000", n)
	}
}

// TestTerms: what does not fit is not asked, and the listing says why.
func TestTerms(t *testing.T) {
	for trouble, spoil := range map[string]func(q *seal.QuoteAnswer){
		"":           func(*seal.QuoteAnswer) {},
		"clock-skew": func(q *seal.QuoteAnswer) { q.Now = q.Now.Add(11 * time.Minute) },
		"price":      func(q *seal.QuoteAnswer) { q.PricePerGiBDay = 1 << 41 },
		"region":     func(q *seal.QuoteAnswer) { q.Region = "there" },
	} {
		w := newWorld(t, 1, 1)
		w.terms.regions = []string{"here"}
		w.reload()
		w.answers = func(t task) *doneEvent {
			if t.work != workQuote {
				return nil
			}
			q := seal.QuoteAnswer{FreeBytes: 1 << 40, MaxExpiry: w.wall.AddDate(10, 0, 0), Region: "here", Now: *w.wall}
			spoil(&q)
			return &doneEvent{quote: q}
		}
		f := testFile("f", Policy{Redundancy: 1}, columns("g", 1))
		w.step(fileEvent{f})
		w.settle()
		if p := w.m.known[0]; !strings.HasPrefix(p.trouble, trouble) || (trouble == "") != (w.status(f).State == Uploaded) {
			t.Errorf("want trouble %q: it is %q, file is %s", trouble, p.trouble, w.status(f))
		}
	}
}

func TestTooManyProviders(t *testing.T) {
	w := newWorld(t, 1, 12)
	w.terms.limits.Providers = 4
	w.reload()
	f := testFile("f", Policy{Redundancy: 1}, columns("g", 3))
	for i, id := range w.order {
		w.fakes[id].skew = time.Duration(min(1, i%3)) * time.Hour // only every third is of use
	}
	w.step(fileEvent{f})
	w.settle()
	if n := len(w.m.known); n > 4 {
		t.Errorf("%d providers are remembered", n)
	}
	w.wantState(f, Uploaded)
}

func TestFilesThatCannotBeKept(t *testing.T) {
	n := newNetwork(t, 0)
	good := func() File { return n.file("f", 3, Policy{}) }
	if _, err := good().check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(f *File){
		"long name":        func(f *File) { f.Name = string(make([]byte, maxName+1)) },
		"short life":       func(f *File) { f.Policy.Lifetime = time.Second },
		"negative copies":  func(f *File) { f.Policy.Redundancy = -1 },
		"many copies":      func(f *File) { f.Groups[0].Copies = MaxCopies + 1 },
		"no columns":       func(f *File) { f.Groups[0].Columns = nil },
		"much parity":      func(f *File) { f.Groups[0].Parity = 4 },
		"no chunk":         func(f *File) { f.Groups[0].Columns[0] = Column{} },
		"other descriptor": func(f *File) { f.Groups[0].Columns[0].Descriptor = f.Groups[0].Columns[1].Descriptor },
		"no descriptor": func(f *File) {
			f.Groups[0].Columns[0] = Column{Chunk: cidOf("junk"), Descriptor: []byte("junk")}
		},
	} {
		f := good()
		spoil(&f)
		if _, err := f.check(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfigs(t *testing.T) {
	n := newNetwork(t, 0)
	for name, spoil := range map[string]func(c *Config){
		"no database":     func(c *Config) { c.DB = nil },
		"no chunks":       func(c *Config) { c.Chunks = nil },
		"short secret":    func(c *Config) { c.Secret = c.Secret[:31] },
		"nothing to pay":  func(c *Config) { c.MaxPricePerGiBDay = 1 },
		"no such option":  func(c *Config) { c.Networks = 7 },
		"little memory":   func(c *Config) { c.Limits.SealedBytes = 1 },
		"negative limit":  func(c *Config) { c.Limits.Tries = -1 },
		"negative time":   func(c *Config) { c.AuditInterval = -1 },
		"negative pause":  func(c *Config) { c.Limits.BackoffFrom = -1 },
		"many in a audit": func(c *Config) { c.Limits.AuditSamples = 17 },
	} {
		c := n.config()
		spoil(&c)
		if err := c.defaults(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
