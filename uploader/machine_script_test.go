package uploader

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

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/seal"
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

// story is a world and the names that its script uses.
type story struct {
	*world
	told   strings.Builder
	names  map[peer.ID]string
	chunks map[cid.Cid]string
	states map[seal.LinkID]LinkState
	peers  map[string]*fake
}

// tell runs a script and returns it with what the machine decided.
func tell(t *testing.T, script string) string {
	s := &story{
		world: newWorld(t, 1, 0), names: make(map[peer.ID]string), chunks: make(map[cid.Cid]string),
		states: make(map[seal.LinkID]LinkState), peers: make(map[string]*fake),
	}
	s.onReady = func(r *ready, _ *world) { s.after(r) }
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

// peer returns the provider of a name, new or known.
func (s *story) peer(name string) *fake {
	if s.peers[name] == nil {
		s.peers[name] = s.addProvider()
		s.names[s.peers[name].id] = name
	}
	return s.peers[name]
}

// line carries out one line.
func (s *story) line(f []string) {
	switch name, args := f[0], f[1:]; name {
	case "file":
		s.step(fileEvent{s.file(args)})
	case "remove":
		s.step(removeEvent{testFile(args[0], Policy{}).ID})
	case "cancel":
		s.step(cancelEvent{testFile(args[0], Policy{}).ID})
	case "retry":
		s.step(retryEvent{testFile(args[0], Policy{}).ID})
	case "provider": // provider P [price N]
		if p := s.peer(args[0]); len(args) > 2 {
			p.price = uint64(s.number(args[2]))
		}
	case "liar":
		s.peer(args[0]).liar = true
	case "found":
		for _, n := range args {
			s.step(candidatesEvent{[]Candidate{{ID: s.peer(n).id}}})
		}
	case "gone":
		s.step(goneEvent{s.peer(args[0]).id})
	case "audit":
		s.step(auditEvent{})
	case "pass":
		s.passTo(args[0])
	case "crash":
		s.reload()
		s.ready()
	default:
		s.answer(name, args)
	}
}

// file reads NAME CHUNK… [redundancy N] [auto-renew]
func (s *story) file(args []string) checked {
	var p Policy
	names := args[1:]
	if i := slices.Index(names, "auto-renew"); i > 0 {
		p.AutoRenew, names = true, names[:i]
	}
	if i := slices.Index(names, "redundancy"); i > 0 {
		p.Redundancy, names = s.number(names[i+1]), names[:i]
	}
	for _, n := range names {
		s.chunks[cidOf(n)] = n
	}
	return testFile(args[0], p, names)
}

func (s *story) number(word string) int {
	n, err := strconv.Atoi(word)
	if err != nil {
		s.Fatal(err)
	}
	return n
}

// passTo lets time pass, ringing on the way.
func (s *story) passTo(word string) {
	d, err := time.ParseDuration(word)
	if err != nil {
		s.Fatal(err)
	}
	end := s.now + d
	for at, ok := s.m.Next(); ok && at <= end; at, ok = s.m.Next() {
		s.pass(at - s.now)
	}
	s.pass(end - s.now)
}

// answer reads HOW WORK [CHUNK] [PROVIDER]: how a task that is under way goes.
func (s *story) answer(how string, args []string) {
	code := ""
	if how == "refuse" || how == "miss" {
		code, args = args[0], args[1:]
	}
	i := slices.IndexFunc(s.tasks, func(t task) bool { return s.taskName(t) == strings.Join(args, " ") })
	if i < 0 {
		s.Fatalf("%s is not under way\n%s", strings.Join(args, " "), s.told.String())
	}
	t := s.tasks[i]
	s.tasks = slices.Delete(s.tasks, i, i+1)
	e := doneEvent{task: t.id}
	switch how {
	case "ok":
		e = s.do(t)
	case "silent":
		e.err = errSilent
	case "lost": // it was done, and the answer is lost
		s.do(t)
		e.err = errSilent
	case "fail":
		e.err = errLocal{errors.New("trouble on this side")}
	case "lie":
		e.err = fmt.Errorf("%s: %w", t.work, seal.ErrSignature)
	case "refuse":
		for c := seal.RefusedFull; c <= seal.RefusedFailed; c++ {
			if c.String() == code {
				e.err = seal.Refuse(c, "")
			}
		}
	case "miss":
		e.missing = seal.AllSegments(s.number(code))
		if t.work == workData {
			got := t.missing
			for i := range s.number(code) {
				got.Clear(i)
			}
			s.fakes[t.provider.id].data(t.link.ID, got)
		}
	default:
		s.Fatalf("unknown line: %s", how)
	}
	s.step(e)
}

func (s *story) taskName(t task) string {
	words := []string{t.work.String()}
	if t.link.Chunk.Defined() {
		words = append(words, s.chunks[t.link.Chunk])
	}
	if t.provider != nil {
		words = append(words, s.names[t.provider.id])
	}
	return strings.Join(words, " ")
}

// after tells what the machine decided.
func (s *story) after(r *ready) {
	say := func(format string, args ...any) {
		when := ""
		if s.now > 0 {
			when = fmt.Sprintf("at %v: ", s.now)
		}
		fmt.Fprintf(&s.told, "> "+when+format+"\n", args...)
	}
	for _, l := range r.links {
		if s.states[l.ID] == l.State {
			continue
		}
		s.states[l.ID] = l.State
		text := fmt.Sprintf("%s at %s is %s", s.chunks[l.Chunk], s.names[l.Provider], l.State)
		if l.State == LinkCreated && l.Price > 0 {
			text += fmt.Sprintf(", price %d", l.Price)
		}
		if l.State == LinkFailed {
			text += ": " + l.Reason
		}
		say("%s", text)
	}
	for _, t := range r.tasks {
		if t.work == workData {
			say("%s, %d segments", s.taskName(t), t.missing.Count())
			continue
		}
		say("%s", s.taskName(t))
	}
	for _, f := range r.changed {
		say("file %s is %s, %d of %d bytes", f.Name, f, f.Done, f.Bytes)
	}
}
