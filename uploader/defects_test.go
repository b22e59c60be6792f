package uploader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/holdfastfs/holdfast/erasure"
	"github.com/holdfastfs/holdfast/uploader/seal"
)

// These are mistakes that programs of this kind have made, each with a test that it is not made here.

func (w *world) linksIn(s LinkState) (all []*link) {
	for _, l := range w.m.linksOf(nil) {
		if l.State == s {
			all = append(all, l)
		}
	}
	return all
}

// until carries tasks out until some link is in a state.
func (w *world) until(s LinkState) *link {
	w.Helper()
	w.ready()
	for range 1000 {
		if all := w.linksIn(s); len(all) > 0 {
			return all[0]
		}
		if len(w.tasks) > 0 {
			w.answerOne()
			continue
		}
		at, ok := w.m.Next()
		if !ok {
			break
		}
		w.pass(max(0, at-w.now))
	}
	w.Fatalf("no link comes to %s\n%s", s, w.dump())
	return nil
}

func TestDefectAlreadyStoredSticks(t *testing.T) {
	w := newWorld(t, 1, 1)
	w.answers = func(t task) *doneEvent {
		if f := w.fakes[w.order[0]]; t.work == workMap {
			f.change(t.link.ID, func(l *fakeLink) { l.whole = true })
		}
		return nil
	}
	f := testFile("f", Policy{Redundancy: 1}, columns("g", 1))
	w.step(fileEvent{f})
	w.settle()
	w.wantState(f, Uploaded)
	if w.done[workData] != 0 {
		t.Errorf("%d transfers of data that was there", w.done[workData])
	}
}

func TestDefectOneNotFoundFailsTheFile(t *testing.T) {
	for _, code := range []seal.RefusalCode{seal.RefusedNotStored, seal.RefusedUnknownLink, seal.RefusedFull, seal.RefusedClosing} {
		w := newWorld(t, 1, 4)
		bad := w.order[0]
		w.answers = func(t task) *doneEvent {
			if t.provider != nil && t.provider.id == bad && t.work != workQuote && t.work != workRelease && t.work != workSeal {
				return &doneEvent{err: seal.Refuse(code, "")}
			}
			return nil
		}
		f := testFile("f", Policy{}, columns("g", 3))
		w.step(fileEvent{f})
		for range 10 {
			w.settle()
			if s := w.status(f); s.State == Failed {
				t.Fatalf("%s: file is %s", code, s)
			}
		}
		w.wantState(f, Uploaded)
	}
}

func TestDefectInFlightLinksAreNotResumed(t *testing.T) {
	for s := LinkCreated; s <= LinkSigned; s++ {
		w := newWorld(t, 7, 2)
		for _, f := range w.fakes {
			f.price = 1 << 40
		}
		f := testFile("f", Policy{Redundancy: 1}, columns("g", 1))
		if s == LinkEncrypted || s == LinkDataReceived { // they go on at once, unless slots are taken
			w.holdAt(s)
		}
		w.step(fileEvent{f})
		if s == LinkAgreed { // or memory is full
			w.m.cfg.limits.SealedBytes = 0
		}
		l := w.until(s)
		id := l.ID
		w.answers = nil
		w.restart()
		w.settle()
		w.wantState(f, Uploaded)
		if all := w.m.linksOf(nil); len(all) != 1 || all[0].ID != id || !all[0].settled() {
			t.Errorf("after a stop in %s there are %d links\n%s", s, len(all), w.dump())
		}
		w.checkKept()
	}
}

// holdAt has another request take the only slot when a link comes to a state.
func (w *world) holdAt(s LinkState) {
	w.m.cfg.limits.PerProvider = 1
	before := map[LinkState]work{LinkEncrypted: workSeal, LinkDataReceived: workData}[s]
	w.answers = func(t task) *doneEvent {
		if t.work == before {
			t.provider.asking = true
			w.m.mailed(t.provider)
		}
		return nil
	}
}

func TestDefectBusyAfterAnError(t *testing.T) {
	faults := []error{errSilent, errLocal{errors.New("local")}, seal.Refuse(seal.RefusedBusy, ""), seal.Refuse(seal.RefusedFailed, ""),
		seal.Refuse(seal.RefusedNoChannel, ""), seal.Refuse(seal.RefusedLimit, ""), seal.Refuse(200, "of a later version")}
	for w0 := workSearch; w0 <= workRelease; w0++ {
		for _, fault := range faults {
			w := newWorld(t, 3, 3)
			for _, f := range w.fakes {
				f.price = 1 << 40
			}
			left := 2
			w.answers = func(t task) *doneEvent {
				if t.work == w0 && left > 0 {
					left--
					return &doneEvent{err: fault}
				}
				return nil
			}
			f := testFile("f", Policy{Redundancy: 1, AutoRenew: true}, columns("g", 2))
			w.step(fileEvent{f})
			w.settle()
			if w0 == workRenew || w0 == workAudit {
				w.pass(25 * 24 * time.Hour)
				w.settle()
			}
			w.settle()
			if s := w.status(f); s.State != Uploaded {
				t.Errorf("after %s failed with %v: file is %s\n%s", w0, fault, s, w.dump())
			}
			for _, p := range w.m.known {
				if p.busy != 0 {
					t.Errorf("after %s failed with %v: provider is busy", w0, fault)
				}
			}
		}
	}
}

func TestDefectLinksAreCountedTwice(t *testing.T) {
	w := newWorld(t, 1, 8)
	f := testFile("f", Policy{Redundancy: 3}, columns("g", 1))
	w.step(fileEvent{f})
	for range 200 {
		w.ready()
		if n := len(w.m.links); n > 3 {
			t.Fatalf("%d links for a redundancy of 3", n)
		}
		if len(w.tasks) > 0 {
			w.answerOne()
		}
	}
	w.settle()
	if n := len(w.m.links); n != 3 {
		t.Fatalf("%d links for a redundancy of 3", n)
	}
}

func TestDefectExpiryAndRenewal(t *testing.T) {
	w := newWorld(t, 1, 4)
	for _, f := range w.fakes {
		f.price = 1 << 30
	}
	once, kept := testFile("once", Policy{Redundancy: 1}, columns("g", 2)), testFile("kept", Policy{Redundancy: 1, AutoRenew: true}, columns("h", 2))
	w.step(fileEvent{once})
	w.step(fileEvent{kept})
	w.settle()
	for _, l := range w.linksIn(LinkSigned) {
		if d := l.expiry().Sub(testStart); d < someLifetime || d > someLifetime+time.Hour {
			t.Errorf("link expires after %v", d)
		}
	}
	for range 6 * 30 {
		w.pass(24 * time.Hour)
		w.settle()
		if s := w.status(kept); s.State != Uploaded || s.Expiry < w.wall.Add(someLifetime/renewFrom-24*time.Hour).Unix() {
			t.Fatalf("file is %s, expires %v, now %v", s, time.Unix(s.Expiry, 0), *w.wall)
		}
		w.checkKept()
	}
	if n := len(w.linksIn(LinkSigned)); n != 2 {
		t.Errorf("%d links are signed after half a year", n)
	}
	if s := w.status(once); s.String() != "failed: expired" {
		t.Errorf("file that is not renewed is %s", s)
	}
	kept.Policy.AutoRenew = false
	w.step(fileEvent{kept})
	for range 40 {
		w.pass(24 * time.Hour)
		w.settle()
	}
	if s := w.status(kept); s.String() != "failed: expired" || len(w.linksIn(LinkSigned)) > 0 {
		t.Errorf("file that is not renewed any more is %s, %d links are left", s, len(w.linksIn(LinkSigned)))
	}
	w.checkKept()
	if w.done[workRenew] < 2*5 || w.done[workRenew] > 2*10 {
		t.Errorf("%d renewals of 2 links in half a year", w.done[workRenew])
	}
}

func TestDefectStoredOnReceiptOfTheMap(t *testing.T) {
	w := newWorld(t, 1, 1)
	f := testFile("f", Policy{Redundancy: 1}, columns("g", 1))
	w.step(fileEvent{f})
	for _, s := range []LinkState{LinkSendingMap, LinkSendingData, LinkAskingSignature} {
		w.until(s)
		w.wantState(f, Uploading)
	}
	w.until(LinkSigned)
	w.wantState(f, Uploaded)
}

func TestDefectSignatureProvesNothing(t *testing.T) {
	key, _ := keyOf(t, "another")
	lies := map[string]func(p *seal.Pledge) crypto.PrivKey{
		"another's key": func(p *seal.Pledge) crypto.PrivKey { p.Provider, p.Signature = p.Writer, nil; return nil },
		"size":          func(p *seal.Pledge) crypto.PrivKey { p.Bytes--; return key },
		"price":         func(p *seal.Pledge) crypto.PrivKey { p.Price++; return key },
		"expiry":        func(p *seal.Pledge) crypto.PrivKey { p.Expiry = p.Expiry.Add(-time.Second); return key },
		"root":          func(p *seal.Pledge) crypto.PrivKey { p.SealedRoot[0]++; return key },
		"writer":        func(p *seal.Pledge) crypto.PrivKey { p.Writer = p.Provider; return key },
		"chunk":         func(p *seal.Pledge) crypto.PrivKey { p.Chunk = cidOf("another"); return key },
		"no signature":  func(p *seal.Pledge) crypto.PrivKey { p.Signature = nil; return nil },
	}
	for name, lie := range lies {
		w := newWorld(t, 1, 2)
		liar := w.fakes[w.order[0]]
		w.answers = func(t task) *doneEvent {
			if t.work != workSign || t.provider.id != liar.id {
				return nil
			}
			p := liar.sign(t.link.ID).Pledge
			if lie(&p) != nil {
				if err := p.Sign(liar.key); err != nil {
					w.Fatal(err)
				}
			}
			return &doneEvent{pledge: p}
		}
		f := testFile("f", Policy{Redundancy: 1}, columns("g", 1))
		w.step(fileEvent{f})
		for w.now < 24*time.Hour {
			w.settle()
			w.pass(time.Hour)
		}
		w.wantState(f, Uploaded)
		for _, l := range w.m.linksOf(nil) {
			if l.provider.id == liar.id && (l.State != LinkFailed || !l.Cause) {
				t.Errorf("%s: link with the liar is %s", name, l.State)
			}
		}
		if liar.calls["store"] > 1 {
			t.Errorf("%s: the liar is asked %d times", name, liar.calls["store"])
		}
	}
}

func TestDefectOneProviderHoldsSeveralCopies(t *testing.T) {
	w := newWorld(t, 1, 2)
	copies := testFile("copies", Policy{Redundancy: 3}, columns("g", 1))
	mirror := testFile("mirror", Policy{Redundancy: 1}, []string{"h", "h", "h"}) // k = 1, m = 2: one chunk
	w.step(fileEvent{copies})
	w.step(fileEvent{mirror})
	w.settle()
	for _, f := range []checked{copies, mirror} {
		if s := w.wantState(f, Uploading); s.Reason != "needs 3 providers, 2 known" {
			t.Errorf("file %s is %s", f.Name, s)
		}
	}
	w.addProvider()
	w.settle()
	w.pass(10 * time.Minute)
	w.settle()
	for _, f := range []checked{copies, mirror} {
		w.wantState(f, Uploaded)
		at := make(map[string]bool)
		for _, l := range w.m.linksOf([]FileID{f.ID}) {
			at[string(l.Provider)] = true
		}
		if len(at) != 3 {
			t.Errorf("copies of %s are at %d providers", f.Name, len(at))
		}
	}
}

func TestDefectUnboundedRequestsAndRetransmits(t *testing.T) {
	w := newWorld(t, 1, 2)
	deaf := w.fakes[w.order[0]]
	w.answers = func(t task) *doneEvent {
		if t.work == workData && t.provider.id == deaf.id {
			return &doneEvent{missing: t.missing} // whatever is sent
		}
		return nil
	}
	var files []checked
	for i := range 12 {
		f := testFile(fmt.Sprint(i), Policy{Redundancy: 1}, columns(fmt.Sprint("g", i), 1))
		files = append(files, f)
		w.m.Step(fileEvent{f})
	}
	for w.now < 6*time.Hour { // checkMachine looks at the number of requests after each event
		w.settle()
		w.pass(time.Minute)
	}
	for _, f := range files {
		w.wantState(f, Uploaded)
	}
	if w.done[workData] > 12+12*w.terms.limits.Tries*20 {
		t.Errorf("%d transfers of 12 chunks", w.done[workData])
	}
	drip := newWorld(t, 1, 1) // takes one segment at a time, for ever
	drip.terms.limits.Rounds = 2
	drip.reload()
	sent := 0
	drip.answers = func(t task) *doneEvent {
		if t.work != workData {
			return nil
		}
		sent++
		missing := t.missing
		missing.Clear(missing.Next(0))
		return &doneEvent{missing: missing}
	}
	drip.step(fileEvent{testFile("f", Policy{Redundancy: 1}, columns("g", 1))})
	l := drip.until(LinkFailed)
	if sent != 2 || !strings.Contains(l.Reason, "after 2 transfers") {
		t.Errorf("failed after %d transfers: %s", sent, l.Reason)
	}
}

func TestDefectPaymentErrorsAndPaymentWithoutChannel(t *testing.T) {
	w := newWorld(t, 1, 1)
	p := w.fakes[w.order[0]]
	p.price = 1 << 40
	broke := true
	w.answers = func(t task) *doneEvent {
		if (t.work == workPay || t.work == workVoucher) && !p.channel {
			w.Error("paid before there was a channel")
		}
		if t.work == workPay && broke {
			return &doneEvent{err: errLocal{errors.New("pay: no money")}}
		}
		return nil
	}
	f := testFile("f", Policy{Redundancy: 1}, columns("g", 1))
	w.step(fileEvent{f})
	l := w.until(LinkSigned)
	for w.now < time.Hour {
		w.pass(time.Second)
		if len(w.tasks) > 0 {
			w.answerOne()
		}
		if l.Reason != "" {
			break
		}
	}
	if l.Reason != "pay: no money" || l.Paid {
		t.Errorf("link that can't be paid says %q", l.Reason)
	}
	broke = false
	w.settle()
	if !l.settled() || l.Reason != "" || w.purse[l.ID] != l.Price {
		t.Errorf("link is not paid in the end: %q", l.Reason)
	}
}

func TestDefectBytesAreTrustedUnchecked(t *testing.T) {
	good := []byte("what the descriptor says")
	shard := erasure.Shard{CID: cidOf(string(good)), Bytes: len(good)}
	id, descriptor, err := erasure.Chunk{shard}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	j := newMemory()
	r := ready{chunks: []chunkRecord{{ID: id, Bytes: int64(len(good)), Descriptor: descriptor}}}
	if err := j.commit(&r); err != nil {
		t.Fatal(err)
	}
	read := slices.Clone(good)
	s := newSealer(Config{Secret: make([]byte, 32), Chunks: readerFunc(func() []byte { return read }), Limits: Limits{Sealers: 1, TransferFor: time.Hour}}, j)
	l := record{Chunk: id, Provider: "p", Bytes: int64(len(good))}
	if _, err := s.seal(t.Context(), &l, nil); err != nil {
		t.Errorf("seal good bytes: %v", err)
	}
	for _, read = range [][]byte{nil, good[1:], []byte("what the descriptor said")} {
		var local errLocal
		if _, err := s.seal(t.Context(), &l, nil); !errors.Is(err, errShard) || !errors.As(err, &local) {
			t.Errorf("seal %q: %v", read, err)
		}
	}
}

type readerFunc func() []byte

func (f readerFunc) ReadShard(context.Context, cid.Cid) ([]byte, bool, error) {
	return slices.Clone(f()), false, nil
}

func TestDefectSealedAgainForEachProvider(t *testing.T) {
	w := newWorld(t, 1, 6)
	refused := 0
	w.answers = func(t task) *doneEvent {
		if t.work == workStore && refused < 6 { // those who refuse cost nothing
			refused++
			return &doneEvent{err: seal.Refuse(seal.RefusedLimit, "")}
		}
		return nil
	}
	f := testFile("f", Policy{}, columns("g", 6))
	w.step(fileEvent{f})
	w.settle()
	w.wantState(f, Uploaded)
	if w.done[workSeal] != 6 {
		t.Errorf("%d chunks were sealed for 6 links", w.done[workSeal])
	}
}
