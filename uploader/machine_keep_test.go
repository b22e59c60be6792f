package uploader

import (
	"testing"
	"time"
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
