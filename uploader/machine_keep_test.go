package uploader

import (
	"slices"
	"testing"
	"time"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// TestGoneDelaysNoAudit: that a provider is gone makes an audit come earlier, never later.
func TestGoneDelaysNoAudit(t *testing.T) {
	for _, interval := range []time.Duration{2 * time.Second, 24 * time.Hour} {
		w := newWorld(t, 1, 1)
		w.terms.audit = interval
		w.reload()
		f := testFile("f", Policy{Redundancy: 1}, columns("g", 1))
		w.step(fileEvent{f})
		w.settle()
		l := w.linksIn(LinkSigned)[0]
		due := w.now + 10*time.Second
		if l.audit.at < due {
			due = l.audit.at
		}
		w.step(goneEvent{l.Provider})
		w.step(goneEvent{l.Provider})
		if !l.audit.on() || l.audit.at != due {
			t.Errorf("with audits every %v one is due at %v, want %v", interval, l.audit.at, due)
		}
	}
}

// TestProved: who says that it has all already proves it before anybody may rely on it, also over a restart.
func TestProved(t *testing.T) {
	w := newWorld(t, 1, 3)
	for _, p := range w.fakes {
		p.liar = true
	}
	f := testFile("f", Policy{}, columns("g", 3))
	w.step(candidatesEvent{w.found})
	w.step(fileEvent{f})
	audits := func() (n int) {
		for _, task := range w.tasks {
			if task.work == workAudit {
				n++
			}
		}
		return n
	}
	for audits() < 3 {
		i := slices.IndexFunc(w.tasks, func(t task) bool { return t.work != workAudit })
		if i < 0 {
			t.Fatalf("%d of 3 links are audited at once\n%s", audits(), w.dump())
		}
		task := w.tasks[i]
		w.tasks = slices.Delete(w.tasks, i, i+1)
		w.step(w.do(task))
	}
	if s := w.wantState(f, Uploaded); s.Proved || s.Safe() {
		t.Errorf("nothing was sent or audited, and the file is %+v", s)
	}
	w.restart()
	if s := w.wantState(f, Uploaded); s.Proved || s.Safe() {
		t.Errorf("nothing was sent or audited before a restart, and the file is %+v", s)
	}
	for _, p := range w.fakes {
		p.liar = false
	}
	w.pass(time.Minute) // audits are due: all are found out, and the chunks sent
	w.settle()
	if s := w.wantState(f, Uploaded); !s.Safe() {
		t.Errorf("chunks were sent and the file is %+v", s)
	}
	w.restart()
	if s := w.wantState(f, Uploaded); !s.Safe() {
		t.Errorf("chunks were sent before a restart, and the file is %+v", s)
	}
}

// TestDoubted: a file is doubted from when a provider of it is gone or silent until it answers, or others count.
func TestDoubted(t *testing.T) {
	for name, spoil := range map[string]func(w *world, l *link){
		"gone": func(w *world, l *link) { w.step(goneEvent{l.Provider}) },
		"silent": func(w *world, l *link) {
			w.away[l.Provider] = true
			w.m.auditNow(l)
			w.ready()
			w.answerAll()
			w.away[l.Provider] = false
		},
		"excuses": func(w *world, l *link) {
			w.answers = func(t task) *doneEvent { return &doneEvent{err: seal.Refuse(seal.RefusedBusy, "always")} }
			w.m.auditNow(l)
			w.ready()
			w.answerAll()
			w.answers = nil
		},
		"repair": func(w *world, _ *link) { w.step(repairEvent{[]FileID{testFile("f", Policy{}).ID}}) },
	} {
		w := newWorld(t, 1, 3)
		f := testFile("f", Policy{}, columns("g", 3))
		w.step(fileEvent{f})
		w.settle()
		if s := w.wantState(f, Uploaded); !s.Safe() {
			t.Errorf("%s: the file is %+v", name, s)
		}
		spoil(w, w.linksIn(LinkSigned)[1])
		if s := w.wantState(f, Uploaded); !s.Proved || !s.Doubted || s.Safe() {
			t.Errorf("%s: nobody knows, and the file is %+v", name, s)
		}
		for end := w.now + 2*time.Minute; w.now < end; w.pass(10 * time.Second) {
			w.answerAll()
		}
		if s := w.wantState(f, Uploaded); !s.Safe() {
			t.Errorf("%s: the provider has answered and the file is %+v", name, s)
		}
	}
}

// answerAll carries out all tasks that are under way now.
func (w *world) answerAll() {
	for range len(w.tasks) {
		w.answerOne()
	}
}
