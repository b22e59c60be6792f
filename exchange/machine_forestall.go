package exchange

import "time"

const (
	// forestalledMost is how often a session asks others anew whose answers it did not wait for, and
	// forestalledPause how long after the first time; after each further one it is twice as long.
	forestalledMost  = 6
	forestalledPause = 20 * time.Millisecond
)

// forestall is when a session is to ask others again, as a block came before all had said whether they have it: they
// are told to cancel, and will not say so. Who is a moment behind another peer with a small first block, and
// may be as fast with all others, would be left out until the session looks around.
type forestall struct {
	due   bool
	at    time.Duration
	times int
}

// forestalled notes that a block is here which others have yet to say whether they have it.
func (m *machine) forestalled(w *want) {
	f := &w.session.forestall
	if f.due || f.times >= forestalledMost || w.pending(WantHave) == 0 {
		return
	}
	f.due, f.at = true, m.now+forestalledPause<<f.times-forestalledPause
	f.times++
}
