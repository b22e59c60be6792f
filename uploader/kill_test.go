package uploader

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	farend "github.com/holdfastfs/holdfast/uploader/provider"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// station is a writer and its providers, in folders of their own.
type station struct {
	*testing.T
	role
	hosts  []*host
	blocks map[cid.Cid][]byte
	file   File
}

func newStation(t *testing.T, seed uint64, sites int) *station {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "uploader-") // where syncing costs nothing
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	st := &station{T: t, role: role{Dir: dir, Seed: seed, Sites: sites}, hosts: make([]*host, sites)}
	st.file, st.blocks = makeFile(seed)
	st.must(os.Mkdir(filepath.Join(dir, "staged"), 0o700))
	for c, b := range st.blocks {
		st.must(os.WriteFile(filepath.Join(dir, "staged", c.String()), b, 0o600))
	}
	for i := range st.hosts {
		st.must(os.MkdirAll(st.site(i), 0o700))
	}
	t.Cleanup(st.closeHosts)
	return st
}

func (st *station) must(err error) {
	st.Helper()
	if err != nil {
		st.Fatal(err)
	}
}

// open starts providers in this process.
func (st *station) open(which ...int) {
	st.Helper()
	for _, i := range which {
		var err error
		st.hosts[i], err = st.host(i, &killer{})
		st.must(err)
	}
}

func (st *station) closeHosts() {
	st.Helper()
	for i, h := range st.hosts {
		if h != nil {
			st.hosts[i] = nil
			if err := h.close(); !errors.Is(err, net.ErrClosed) { // it rests already
				st.must(err)
			}
		}
	}
}

// process is a role in a process of its own.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.Closer
	out   *bufio.Reader
}

func (st *station) spawn(r role) *process {
	st.Helper()
	b, err := json.Marshal(r)
	st.must(err)
	p := &process{t: st.T, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), roleEnv+"="+string(b), "GORACE=atexit_sleep_ms=0") // the race detector would sleep a second
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.stdin, err = p.cmd.StdinPipe()
	st.must(err)
	out, err := p.cmd.StdoutPipe()
	st.must(err)
	st.must(p.cmd.Start())
	p.out = bufio.NewReader(out)
	return p
}

// end waits for a process and returns the points that it came to, unless it was killed on the way.
func (p *process) end() (seen []string, killed bool) {
	p.t.Helper()
	b, err := io.ReadAll(p.out)
	if werr := p.cmd.Wait(); werr != nil {
		var exit *exec.ExitError
		if errors.As(werr, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
			return nil, true
		}
		p.t.Fatal(werr)
	}
	if err == nil {
		err = json.NewDecoder(bytes.NewReader(b)).Decode(&seen)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return seen, false
}

// ready waits until a provider answers.
func (p *process) ready() {
	p.t.Helper()
	if line, err := p.out.ReadString('\n'); line != "ready\n" {
		p.t.Fatalf("provider says %q, %v", line, err)
	}
}

// writerActs are what writers are killed in, each with what was done before.
var writerActs = []struct {
	name   string
	before []string
	later  time.Duration
	must   []string // points that there have to be
}{
	{name: "upload", must: points("before sending ", "after sending ", "at the answer to ")("quote", "store", "channel", "map", "data", "sign", "voucher")},
	{name: "audit", before: []string{"upload"}, must: points("before sending ", "after sending ", "at the answer to ")("audit")},
	{name: "renew", before: []string{"upload"}, later: 25 * 24 * time.Hour, must: points("before sending ", "after sending ", "at the answer to ")("renew", "voucher")},
	{name: "remove", before: []string{"upload"}, must: points("before sending ", "after sending ", "at the answer to ")("release")},
}

func points(prefixes ...string) func(kinds ...string) []string {
	return func(kinds ...string) (all []string) {
		for _, p := range prefixes {
			for _, k := range kinds {
				all = append(all, p+k)
			}
		}
		return all
	}
}

// prepare brings a new station to where an act begins.
func prepare(t *testing.T, seed uint64, before []string, later time.Duration) *station {
	t.Helper()
	st := newStation(t, seed, 2)
	st.open(0, 1)
	for _, act := range before {
		r := st.role
		r.Act = act
		st.must(r.write(t.Context(), &killer{}))
	}
	if later > 0 { // the clocks of all
		st.closeHosts()
		st.Later = later
		st.open(0, 1)
	}
	return st
}

// TestWriterIsKilled kills the writer's process at every point of everything that it does, and lets the
// next one go on.
func TestWriterIsKilled(t *testing.T) {
	for _, act := range writerActs {
		t.Run(act.name, func(t *testing.T) {
			want := act.must
			if act.name == "upload" {
				for s := LinkCreated; s <= LinkSigned; s++ {
					want = append(want, "before commit of "+s.String(), "after commit of "+s.String())
				}
				want = append(want, "before payment", "within payment", "after payment", "before the channel", "after the channel",
					"after commit of paid", "after commit of delivered", "amid sending data")
			}
			var seen []string
			for try := uint64(0); try < maxTries && (try == 0 || len(missing(seen, want)) > 0); try++ {
				st := prepare(t, 1000*try+1, act.before, act.later)
				r := st.role
				r.Act = act.name
				life, _ := st.spawn(r).end()
				st.check(act.name)
				seen = append(seen, missing(seen, life)...)
			}
			for i, k := range killsOf(t, seen, want) {
				t.Run(k.name(), func(t *testing.T) {
					t.Parallel()
					for try := range uint64(maxTries) {
						st := prepare(t, 1000*try+uint64(2+i), act.before, act.later)
						r := st.role
						r.Act, r.KillAt, r.KillNth = act.name, k.at, k.nth
						_, killed := st.spawn(r).end()
						r.KillAt = ""
						if _, again := st.spawn(r).end(); again {
							t.Fatal("the next one was killed too")
						}
						st.check(act.name)
						if killed {
							return
						}
					}
					t.Errorf("the writer never came to it")
				})
			}
		})
	}
}

// maxTries is how many lives it takes at most to come to a point that depends on who is faster.
const maxTries = 10

// missing returns those of want, repeated as they are, that are not in seen.
func missing(seen, want []string) (out []string) {
	for _, name := range want {
		if !slices.Contains(seen, name) {
			out = append(out, name)
		}
	}
	return out
}

// kill is a point, after so many times there.
type kill struct {
	at  string
	nth int
}

func (k kill) name() string {
	if k.nth > 0 {
		return k.at + ", later"
	}
	return k.at
}

// killsOf returns the first time that each point was come to, or the middle one too where there is time.
func killsOf(t *testing.T, seen, want []string) (kills []kill) {
	t.Helper()
	times := make(map[string]int)
	for _, name := range seen {
		if times[name]++; times[name] == 1 && len(times)%killEvery == 0 {
			kills = append(kills, kill{at: name})
		}
	}
	for _, name := range missing(seen, want) {
		t.Errorf("nothing comes to the point %s", name)
	}
	if killTwice {
		for _, k := range slices.Clone(kills) {
			if n := times[k.at]; n > 1 {
				kills = append(kills, kill{k.at, n / 2})
			}
		}
	}
	return kills
}

// TestProviderIsKilled kills a provider's process at every point of a link; the writer goes on with the next.
// A hasty writer goes elsewhere, and tells the provider when it is back.
func TestProviderIsKilled(t *testing.T) {
	for _, hasty := range []bool{false, true} {
		t.Run(map[bool]string{false: "patient", true: "hasty"}[hasty], func(t *testing.T) {
			seen, _ := withProvider(t, 1000, role{}, hasty)
			kinds := []string{"quote", "store", "channel", "map", "data", "sign", "voucher"}
			want := append(points("before taking ", "before answering ", "after answering ")(kinds...), "amid taking data",
				"before accepting a voucher", "after accepting a voucher")
			for i, k := range killsOf(t, seen, want) {
				if hasty && !killTwice && !strings.HasPrefix(k.at, "before answering ") {
					continue // where it knows and the writer doesn't is where going elsewhere is hard
				}
				t.Run(k.name(), func(t *testing.T) {
					t.Parallel()
					for try := range uint64(maxTries) {
						if _, killed := withProvider(t, 1000*try+uint64(501+i), role{KillAt: k.at, KillNth: k.nth}, hasty); killed {
							return
						}
					}
					t.Errorf("the provider never came to it")
				})
			}
		})
	}
}

// withProvider uploads while one provider is a process that is killed where how says, and started again.
func withProvider(t *testing.T, seed uint64, how role, hasty bool) (seen []string, killed bool) {
	t.Helper()
	sites := 2
	if hasty {
		sites = 3 // one to go to
	}
	st := newStation(t, seed, sites)
	for i := 1; i < sites; i++ {
		st.open(i)
	}
	st.Hasty = hasty
	how.Dir, how.Seed = st.Dir, seed
	p := st.spawn(how)
	p.ready()
	r := st.role
	r.Act = "upload"
	ended := make(chan error, 1)
	first := p
	go func() {
		err := r.write(t.Context(), &killer{})
		first.stdin.Close() // it ends, if it did not come to where it is killed
		ended <- err
	}()
	if how.KillAt != "" {
		if _, killed = p.end(); !killed {
			st.must(<-ended)
			return nil, false
		}
		how.KillAt = ""
		p = st.spawn(how)
		p.ready()
	}
	err := <-ended
	if p != first {
		st.must(p.stdin.Close())
	}
	seen, _ = p.end()
	st.must(err)
	st.open(0)
	st.check("upload")
	return seen, killed
}

// check compares what the writer, the providers and the book remember.
func (st *station) check(act string) {
	st.Helper()
	links, spent := st.remembered()
	if act == "remove" {
		links = nil
	}
	copies := make(map[cid.Cid]int)
	at := make(map[peer.ID]map[seal.LinkID]record)
	for _, l := range links {
		copies[l.Chunk]++
		if at[l.Provider] == nil {
			at[l.Provider] = make(map[seal.LinkID]record)
		}
		at[l.Provider][l.ID] = l
	}
	for _, g := range st.file.Groups {
		for _, c := range g.Columns {
			if n := copies[c.Chunk]; act != "remove" && n != 1 {
				st.Errorf("%d links of chunk %s", n, c.Chunk)
			}
		}
	}
	var earned uint64
	for i, h := range st.hosts {
		_, id := keyOf(st, siteKey(i))
		earned += st.checkHost(h, at[id], act)
	}
	if earned != spent {
		st.Errorf("%d was paid, %d was earned", spent, earned)
	}
	for c, b := range st.blocks { // what is staged is whole
		if got, _, err := st.ReadShard(st.Context(), c); err != nil || !bytes.Equal(got, b) {
			st.Errorf("staged %s: %d bytes, %v", c, len(got), err)
		}
	}
}

// remembered returns the links of the writer's journal that count, and what it has paid.
func (st *station) remembered() (links []record, spent uint64) {
	st.Helper()
	db, err := reopen(filepath.Join(st.Dir, "writer"))
	st.must(err)
	defer func() { st.must(db.Close()) }()
	j, err := openJournal(db, []byte("up/"))
	st.must(err)
	c, err := j.load()
	st.must(err)
	accounts, _, err := st.accounts(db, "writer")
	st.must(err)
	sum, err := accounts.Spent(Budget)
	st.must(err)
	var price uint64
	for _, l := range c.links {
		switch {
		case l.State == LinkFailed && !l.Release:
			continue
		case l.State != LinkSigned || !l.Paid:
			st.Errorf("link %s is %s, paid: %v", l.ID, l.State, l.Paid)
			continue
		}
		price += l.Price
		p, err := seal.UnmarshalPledge(l.Pledge)
		st.must(err)
		want := seal.Pledge{Chunk: l.Chunk, SealedRoot: l.Root, Bytes: l.Bytes, Price: l.Price, Expiry: l.expiry(), Provider: l.Provider}
		_, want.Writer = keyOf(st, "writer")
		st.must(p.Check(want))
		links = append(links, l)
	}
	if st.Later == 0 && price != uint64(sum) && len(links) > 0 {
		st.Errorf("links cost %d, %d was paid", price, sum)
	}
	return links, uint64(sum)
}

// checkHost checks one provider against the writer's links with it, and returns what it has earned. Its books
// are what its records add up to.
func (st *station) checkHost(h *host, links map[seal.LinkID]record, act string) (earned uint64) {
	st.Helper()
	kept := make(map[cid.Cid]bool)
	st.must(h.Links(st.Context(), func(l farend.Link) bool {
		ours, ok := links[l.ID]
		if !ok && act == "renew" && l.Expiry.Before(st.now().Add(someLifetime/4)) {
			return true // it was renewed, and lasts as long as was signed
		}
		if !ok || l.State != farend.StatePledged || !l.Paid || l.Price != ours.Price || l.Expiry.Unix() != ours.Expiry || kept[l.Chunk] {
			st.Errorf("provider has link %s of %s, %s, price %d, until %v; the writer knows of %v, price %d, until %v",
				l.ID, l.Chunk, l.State, l.Price, l.Expiry, ok, ours.Price, ours.expiry())
		}
		kept[l.Chunk] = true
		return true
	}))
	if len(kept) != len(links) {
		st.Errorf("provider keeps %d chunks, the writer has %d links", len(kept), len(links))
	}
	all, err := h.Earnings(st.Context())
	st.must(err)
	var pledges uint64
	for _, e := range all {
		earned, pledges = earned+e.Earned, pledges+e.Pledges
		if e.Credit > 0 {
			st.Errorf("%d was paid for nothing", e.Credit)
		}
	}
	if act == "upload" && !st.Hasty && pledges != uint64(len(links)) { // who went elsewhere may have left one behind
		st.Errorf("%d pledges were signed for %d links", pledges, len(links))
	}
	for c := range kept {
		st.checkBytes(h, c)
	}
	was := h.Stats()
	if was.ReservedBytes > 0 || was.Agreements > 0 || len(links) == 0 && was.UsedBytes > 0 {
		st.Errorf("provider with %d links: %+v", len(links), was)
	}
	st.checkBooks(h, was)
	return earned
}

// checkBytes reads all blocks of a chunk from a provider.
func (st *station) checkBytes(h *host, chunk cid.Cid) {
	st.Helper()
	shards, err := h.Chunk(st.Context(), chunk)
	st.must(err)
	for _, s := range shards {
		b, err := h.Get(st.Context(), s.CID)
		st.must(err)
		if !bytes.Equal(b.RawData(), st.blocks[s.CID]) {
			st.Errorf("provider gives %d wrong bytes of %s", len(b.RawData()), s.CID)
		}
	}
}

// checkBooks opens a provider again: its books come from its records then.
func (st *station) checkBooks(h *host, was farend.Stats) {
	st.Helper()
	st.must(errors.Join(h.rest(), h.Provider.Close()))
	var err error
	h.Provider, err = farend.Open(h.cfg)
	st.must(err)
	is := h.Stats()
	if is.UsedBytes != was.UsedBytes || is.ReservedBytes != was.ReservedBytes || is.Pledges != was.Pledges {
		st.Errorf("provider counts %d bytes used, %d reserved, %d pledges; its records %d, %d, %d",
			was.UsedBytes, was.ReservedBytes, was.Pledges, is.UsedBytes, is.ReservedBytes, is.Pledges)
	}
	files, err := os.ReadDir(h.cfg.Dir)
	st.must(err)
	if len(files) != is.Copies {
		st.Errorf("provider has %d files of %d copies", len(files), is.Copies)
	}
}
