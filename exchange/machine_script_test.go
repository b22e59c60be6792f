package exchange

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

var update = flag.Bool("update", false, "write what the machine does into the scripts")

// TestScripts tells stories. A line of a script is an event; the lines after it that begin with ">"
// are what the machine decides then. See testdata/scripts/README.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d scripts, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			told := tell(t, string(script))
			switch {
			case told == string(script):
			case *update:
				if err := os.WriteFile(file, []byte(told), 0o644); err != nil {
					t.Fatal(err)
				}
			default:
				t.Errorf("%s\ntells otherwise:\n%s", file, told)
			}
		})
	}
}

// tell runs a script and returns it with what the machine decided.
func tell(t *testing.T, script string) string {
	s := &story{T: t, m: newMachine(Limits{}.withDefaults()), lists: make(lists), blocks: make(map[string]blocks.Block), names: make(map[cid.Cid]string), dues: make(map[string]Due)}
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, ">") {
			continue
		}
		s.told.WriteString(line)
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			s.line(strings.Fields(line))
		}
	}
	return s.told.String()
}

// story is a machine and the names that its script uses.
type story struct {
	*testing.T
	m      *machine
	lists  lists
	blocks map[string]blocks.Block
	names  map[cid.Cid]string
	dues   map[string]Due // by peer and block
	told   strings.Builder
}

// block returns the block of a name: 1,000 bytes unless the size line said otherwise.
func (s *story) block(name string) blocks.Block {
	if s.blocks[name] == nil {
		s.size(name, 1000)
	}
	return s.blocks[name]
}

func (s *story) size(name string, n int) {
	b := leaf(len(s.blocks)+1, n)
	s.blocks[name], s.names[b.Cid()] = b, name
}

func (s *story) cid(name string) cid.Cid { return s.block(name).Cid() }

// line carries out one line.
func (s *story) line(f []string) {
	name, args := f[0], f[1:]
	switch name {
	case "size":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			s.Fatal(err)
		}
		s.size(args[0], n)
		return
	case "pass":
		s.pass(args[0])
		return
	case "show":
		s.show(args)
		return
	case "spend": // spend ROOT MAX-PER-MIB BUDGET [PER-SECOND]
		s.spend(args)
		return
	}
	event := s.event(name, args)
	if event == nil {
		s.Fatalf("unknown line: %s", strings.Join(f, " "))
	}
	s.m.Step(event)
	s.after("")
}

// event reads an event.
func (s *story) event(name string, args []string) any {
	p := peer.ID(args[0])
	switch name {
	case "connect":
		return connectedEvent{p, !slices.Contains(args, "old")}
	case "gone":
		delete(s.lists, p)
		return goneEvent{p}
	case "send-failed":
		delete(s.lists, p)
		return sendFailedEvent{p}
	case "misbehaved":
		return misbehavedEvent{p, errMalformed}
	case "account":
		a := &Account{PricePerMiB: s.amount(args[1]), Suspended: slices.Contains(args, "suspended")}
		return receivedEvent{peer: p, message: Incoming{Account: a}}
	case "paid", "unpaid":
		e := paidEvent{peer: p, dues: []Due{s.dues[args[0]+args[1]]}}
		if name == "unpaid" {
			e.err = errors.New("no channel")
		}
		return e
	case "have", "dont-have", "block":
		return s.message(p, name, args[1:])
	case "dialed":
		if args[1] == "failed" {
			return dialedEvent{p, errors.New("refused")}
		}
		return dialedEvent{p, nil}
	case "found":
		return providersEvent{key: s.cid(args[0]), peers: []peer.AddrInfo{{ID: peer.ID(args[1])}}}
	case "searched":
		return providersEvent{key: s.cid(args[0]), done: true}
	case "stored":
		return storedEvent{keys: []cid.Cid{s.cid(args[0])}}
	case "full":
		return storedEvent{keys: []cid.Cid{s.cid(args[0])}, err: errors.New("disk is full")}
	}
	id, err := strconv.Atoi(args[0])
	if err != nil {
		s.Fatal(err)
	}
	switch name {
	case "want": // want 1 b1 [of root] [until 10s] [bulk]
		w := Want{CID: s.cid(args[1])}
		if i := slices.Index(args, "of"); i > 0 {
			w.Dataset = s.cid(args[i+1])
		}
		e := wantEvent{intent: intentID(id), want: w, bulk: slices.Contains(args, "bulk")}
		if i := slices.Index(args, "until"); i > 0 {
			e.deadline = s.duration(args[i+1])
		}
		return e
	case "forget":
		return forgetEvent{intentID(id)}
	}
	return nil
}

// message reads what a peer says.
func (s *story) message(p peer.ID, kind string, names []string) receivedEvent {
	e := receivedEvent{peer: p}
	price := Amount(0)
	if i := slices.Index(names, "for"); i > 0 {
		price, names = s.amount(names[i+1]), names[:i]
	}
	for _, n := range names {
		if kind == "block" {
			delete(s.lists[p], s.cid(n).KeyString())
			e.message.Blocks = append(e.message.Blocks, s.block(n))
		} else {
			e.message.Presences = append(e.message.Presences, s.presence(n, kind == "have", price))
		}
	}
	return e
}

// presence is what a peer says of a block: with a price, it says its length too.
func (s *story) presence(name string, have bool, price Amount) Presence {
	p := Presence{CID: s.cid(name), Have: have, Price: price}
	if price > 0 {
		p.Bytes = uint64(len(s.block(name).RawData()))
	}
	return p
}

// spend lets a dataset cost something.
func (s *story) spend(args []string) {
	dataset := s.cid(args[0])
	sp := Spending{MaxPricePerMiB: s.amount(args[1]), Budget: s.amount(args[2])}
	if len(args) > 3 {
		sp.PerSecond = s.amount(args[3])
	}
	s.m.Step(walletEvent{dataset: dataset})
	s.m.Step(spendingEvent{dataset, sp})
	s.after("")
}

func (s *story) amount(word string) Amount {
	n, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		s.Fatal(err)
	}
	return Amount(n)
}

func (s *story) duration(word string) time.Duration {
	d, err := time.ParseDuration(word)
	if err != nil {
		s.Fatal(err)
	}
	return d
}

// pass lets time pass, and tells what happens when.
func (s *story) pass(d string) {
	end := s.m.now + s.duration(d)
	for at, ok := s.m.Next(); ok && at <= end; at, ok = s.m.Next() {
		s.m.Tick(at)
		s.after(fmt.Sprintf("at %v: ", at))
	}
	s.m.Tick(end)
	s.after("")
}

// show tells of a want or a peer.
func (s *story) show(args []string) {
	if p := s.m.peers[peer.ID(args[0])]; p != nil {
		fmt.Fprintf(&s.told, "> %s: %d on its list, %d blocks asked for, %d failures, busy %v\n", args[0], len(p.asks), p.blocks, p.failures, p.active)
		return
	}
	w := s.m.wants[s.cid(args[0])]
	if w == nil {
		fmt.Fprintf(&s.told, "> %s: nobody wants it\n", args[0])
		return
	}
	fmt.Fprintf(&s.told, "> %s: %s, %d wait\n", args[0], w.state, len(w.intents))
}

// reason is why a want failed, in a word.
func reason(err error) string {
	var dear *TooDearError
	var broke *BudgetError
	switch {
	case errors.As(err, &dear):
		return fmt.Sprintf("too dear, %d per MiB by %s, the limit is %d", dear.PerMiB, string(dear.Peer), dear.Limit)
	case errors.As(err, &broke):
		return fmt.Sprintf("over budget, %d by %s, %d of %d are spent", broke.Price, string(broke.Peer), broke.Spent, broke.Budget)
	}
	return err.Error()
}

// after tells what the machine decided, and checks it.
func (s *story) after(when string) {
	r := s.m.Ready()
	s.lists.sent(r.sends)
	say := func(format string, args ...any) { fmt.Fprintf(&s.told, "> "+when+format+"\n", args...) }
	for _, p := range r.protects {
		say("%s", map[bool]string{true: "protect ", false: "unprotect "}[p.on]+string(p.peer))
	}
	for _, o := range r.sends {
		var words []string
		for i, e := range o.entries {
			if i == 0 || o.entries[i-1].Kind != e.Kind {
				words = append(words, e.Kind.String())
			}
			words = append(words, s.names[e.CID])
			if e.PricePerMiB > 0 {
				words = append(words, fmt.Sprintf("(at most %d per MiB)", e.PricePerMiB))
			}
		}
		say("to %s: %s", string(o.peer), strings.Join(words, " "))
	}
	for _, d := range r.dials {
		say("dial %s", string(d.ID))
	}
	for _, c := range r.searches {
		say("search %s", s.names[c])
	}
	for _, a := range r.stores {
		say("store %s", s.names[a.Block.Cid()])
	}
	for _, p := range r.disconnects {
		delete(s.lists, p)
		say("disconnect %s", string(p))
	}
	for _, p := range r.payments {
		name := s.names[p.due.CID]
		s.dues[string(p.peer)+name] = p.due
		say("%d due to %s for %s", p.due.Amount, string(p.peer), name)
	}
	for _, res := range r.resolved {
		if res.block == nil {
			say("fail %v: %s", res.intents, reason(res.err))
			continue
		}
		failed := ""
		if res.err != nil {
			failed = ", not kept: " + res.err.Error()
		}
		say("resolve %s for %v%s", s.names[res.block.Cid()], res.intents, failed)
	}
	checkMachine(s.T, s.m)
	s.lists.check(s.T, s.m)
}
