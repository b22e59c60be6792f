package provider

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

var errDead = errors.New("the process has ended")

// mortal is a node that dies at a chosen step, by kill -9 or by a power cut, and comes back.
type mortal struct {
	*node
	r     *rand.Rand
	fs    *faultFolder
	logs  map[string][]byte // the database's logs at its last sync
	left  int               // steps to live; below zero: no end
	taken int               // steps since the start
	dead  bool
}

func newMortal(t testing.TB, seed uint64, change func(*Config)) *mortal {
	t.Helper()
	m := &mortal{node: &node{t: t, root: scratch(t), clock: newClock(), till: newTill()}, r: rand.New(rand.NewPCG(seed, 7)), left: -1}
	m.cfg = Config{Prefix: []byte("p"), Now: m.clock.now, Till: m.till, QuotaBytes: 64 << 20, PricePerGiBDay: 1 << 30}
	m.cfg.Key, m.id = testKey(t, "provider")
	m.cfg.step = m.step
	if change != nil {
		change(&m.cfg)
	}
	m.begin()
	t.Cleanup(m.stop)
	return m
}

func (m *mortal) step(string) error {
	if m.dead {
		return errDead
	}
	m.taken++
	if m.left >= 0 {
		if m.left--; m.left < 0 {
			m.dead = true
			return errDead
		}
	}
	return nil
}

// begin starts a life with what the folders have.
func (m *mortal) begin() {
	m.t.Helper()
	m.dead = false
	var err error
	m.fs, err = newFaultFolder(m.path("chunks"))
	must(m.t, err)
	m.cfg.folder = m.fs
	m.cfg.DB = openDB(m.t, m.path("db"))
	m.logs = map[string][]byte{}
	must(m.t, m.saveLogs())
	m.p, err = open(m.cfg)
	must(m.t, err)
	flush := m.p.disk.Flush
	m.p.disk.Flush = func() error { return errors.Join(flush(), m.saveLogs()) }
	m.alive = true
}

func (m *mortal) saveLogs() error {
	names, err := filepath.Glob(m.path("db/*.mem"))
	for _, n := range names {
		p, rerr := os.ReadFile(n)
		if errors.Is(rerr, os.ErrNotExist) {
			continue // its table was written meanwhile
		}
		m.logs[n], err = p, errors.Join(err, rerr)
	}
	return err
}

// rise begins the next life after the last one died.
func (m *mortal) rise(powerCut bool) {
	m.t.Helper()
	m.left = -1
	m.dead = true
	if !powerCut {
		m.kill()
		m.begin()
		return
	}
	m.alive = false
	m.p.life.Lock()
	m.p.closed = true
	m.p.life.Unlock()
	old := m.path("")
	m.life++
	must(m.t, os.MkdirAll(m.path("db"), 0o700))
	must(m.t, m.fs.cut(m.r, m.path("chunks")))
	m.copyDB(old)
	must(m.t, errors.Join(m.p.table.closeAll(), m.cfg.DB.Close(), os.RemoveAll(old)))
	m.begin()
}

// copyDB copies a database as a power cut leaves it: tables whole, logs with what was not synced torn.
// It copies again if tables came or went meanwhile.
func (m *mortal) copyDB(old string) {
	from := filepath.Join(old, "db")
	for {
		before, err := tables(from)
		must(m.t, err)
		err = m.copyFiles(from)
		after, terr := tables(from)
		must(m.t, terr)
		if before == after {
			must(m.t, err)
			return
		}
	}
}

// tables tells one set of tables and their manifest from another.
func tables(dir string) (string, error) {
	manifest, err := os.ReadFile(filepath.Join(dir, "MANIFEST"))
	if err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	return fmt.Sprintf("%x %v", manifest, entries), err
}

func (m *mortal) copyFiles(from string) error {
	if err := os.RemoveAll(m.path("db")); err != nil {
		return err
	}
	if err := os.MkdirAll(m.path("db"), 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "LOCK" {
			continue
		}
		name := filepath.Join(from, e.Name())
		p, err := os.ReadFile(name)
		if strings.HasSuffix(name, ".mem") {
			if errors.Is(err, os.ErrNotExist) || err == nil && len(p) == 0 {
				continue // a log whose table is written is emptied and then removed
			}
			p = mixLog(m.r, m.logs[name], p)
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(m.path("db/"+e.Name()), p, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// story is a writer that stores one chunk, whatever happens to the provider, and what it has seen.
type story struct {
	m        *mortal
	l        *link
	pledge   *seal.Pledge
	restarts int
	powerCut bool
}

// do sends a request until it is answered by a provider that lived to answer it.
func (s *story) do(fn func() error) error {
	for {
		err := fn()
		if !s.m.dead {
			return err
		}
		s.restarts++
		s.m.rise(s.powerCut)
		s.check()
	}
}

// check holds what the writer was promised against what is there.
func (s *story) check() {
	t := s.m.t
	t.Helper()
	s.m.checkSums()
	s.checkMoney()
	if s.pledge == nil {
		s.served(false)
		return
	}
	s.served(true)
}

// served reads every block: it is right, or not there where that is allowed.
func (s *story) served(all bool) {
	t := s.m.t
	t.Helper()
	for i, sh := range s.l.piece.chunk {
		b, err := s.m.p.Get(t.Context(), sh.CID)
		if !all && errors.Is(err, ErrNotFound) {
			continue
		}
		must(t, err)
		if !bytes.Equal(b.RawData(), s.l.piece.blocks[i]) {
			t.Fatal("a wrong block was served")
		}
	}
}

func (s *story) checkMoney() {
	t := s.m.t
	t.Helper()
	w, err := s.m.p.writer(s.l.from)
	must(t, err)
	got, err := s.m.till.Received(t.Context(), s.l.from)
	must(t, err)
	if w.Accepting || w.Earned+w.Credit != got {
		t.Fatalf("earned %d and credit %d of %d received", w.Earned, w.Credit, got)
	}
}

// upload takes the link to its pledge as a writer does: back to the state that the refusal tells.
func (s *story) upload() {
	t := s.m.t
	t.Helper()
	for range 20 {
		_, err := s.l.agree()
		if s.m.dead {
			s.do(func() error { return nil })
			continue
		}
		must(t, err)
		err = s.do(s.l.openChannel)
		must(t, err)
		var missing seal.Bitmap
		err = s.do(func() (err error) { missing, err = s.l.sendMap(); return err })
		if errors.Is(err, &seal.Refusal{Code: seal.RefusedUnknownLink}) || errors.Is(err, &seal.Refusal{Code: seal.RefusedNoChannel}) {
			continue
		}
		must(t, err)
		if missing.Count() > 0 {
			err = s.do(func() (err error) { missing, err = s.l.send(missing); return err })
			if err != nil || missing.Count() > 0 {
				continue
			}
		}
		var pledge seal.Pledge
		err = s.do(func() (err error) { pledge, err = s.l.sign(); return err })
		if errors.Is(err, &seal.Refusal{Code: seal.RefusedNotStored}) || errors.Is(err, &seal.Refusal{Code: seal.RefusedUnknownLink}) {
			continue
		}
		must(t, err)
		must(t, pledge.Check(s.l.want()))
		s.pledge = &pledge
		return
	}
	t.Fatal("the link was not stored in 20 rounds")
}

// run is the whole life of a link.
func (s *story) run() {
	t := s.m.t
	t.Helper()
	s.upload()
	s.check()
	must(t, s.do(func() error { return s.l.pay(s.l.price) }))
	var again seal.Pledge
	must(t, s.do(func() (err error) { again, err = s.l.sign(); return err }))
	if !bytes.Equal(again.Signature, s.pledge.Signature) {
		t.Fatal("the link has two pledges")
	}
	later := s.l.expiry.Add(s.l.expiry.Sub(s.m.clock.now()))
	must(t, s.do(s.l.openChannel))
	var renewed seal.Pledge
	must(t, s.do(func() (err error) { renewed, err = s.l.renew(linkID(99), later, s.l.price); return err }))
	must(t, renewed.Verify())
	must(t, s.do(func() (err error) { again, err = s.l.renew(linkID(99), later, s.l.price); return err }))
	if !bytes.Equal(again.Signature, renewed.Signature) {
		t.Fatal("a renewal has two pledges")
	}
	must(t, s.do(func() error { _, err := s.l.audit(0, 2); return err }))
	s.check()
	s.pledge = nil // what follows gives it up
	must(t, s.do(s.l.release))
	for _, sh := range s.l.piece.chunk {
		if _, err := s.m.p.Get(t.Context(), sh.CID); !errors.Is(err, ErrNotFound) {
			t.Fatalf("get of a released block: %v", err)
		}
	}
	if used := s.m.p.Stats().UsedBytes; used != 0 {
		t.Fatalf("%d bytes are used after the release", used)
	}
	s.checkMoney()
	if w, err := s.m.p.writer(s.l.from); err != nil || w.Earned != s.l.price {
		t.Fatalf("earned %d, want %d (%v)", w.Earned, s.l.price, err)
	}
}

func newStory(t *testing.T, seed uint64, powerCut bool) *story {
	m := newMortal(t, seed, nil)
	return &story{m: m, l: m.newLink("ann", 1, makePiece(t, seed, 70_000, 10_000, 120_000)), powerCut: powerCut}
}

// TestCrashEverywhere ends the provider's life at each of its steps in turn; the writer goes on. Ways of
// ending take turns, in the long test each has every step.
func TestCrashEverywhere(t *testing.T) {
	whole := newStory(t, 0, false)
	whole.run()
	if whole.m.taken < 40 {
		t.Fatalf("only %d steps in a link's life", whole.m.taken)
	}
	for first, powerCut := range []bool{false, true} {
		for at := first % crashStride; at < whole.m.taken; at += crashStride {
			t.Run(fmt.Sprintf("power=%v/step=%d", powerCut, at), func(t *testing.T) {
				t.Parallel()
				s := newStory(t, uint64(at), powerCut)
				s.m.left = at
				s.run()
				s.m.left = -1
			})
		}
	}
}
