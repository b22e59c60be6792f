package fs

import (
	"path"
	"strings"
	"syscall"
)

// tempState says whether a file waits for its rename. One that was there before never does, whatever it is called: a
// rename or a link to a temporary name is as good as a close.
type tempState int

const (
	tempNone  tempState = iota
	tempWaits           // made under a temporary name, which it has
	tempEnded           // its wait is over; it is told of, by all its names, when it is complete
)

// Temporary tells whether a name is one that a file which was made under it waits to lose, by the patterns of
// UploadConfig.TempNames.
func Temporary(patterns []string) func(name string) bool { return newTempNames(patterns).match }

// What UploadConfig.TempNames may have in place of a pattern.
const (
	TempEditors = "@editors" // the names of vim and emacs
	TempRsync   = "@rsync"   // .NAME.XXXXXX, with six letters or digits
)

// editorNames are what vim and emacs write before they rename, and what they keep beside a file while it is edited.
var editorNames = []string{".*.sw[a-p]", ".*.swpx", "4913", "*~", ".#*", "#*#"}

// tempNames knows which names are temporary.
type tempNames struct {
	patterns []string
	rsync    bool
}

func newTempNames(configured []string) tempNames {
	if configured == nil {
		configured = []string{TempEditors, TempRsync}
	}
	var t tempNames
	for _, p := range configured {
		switch p {
		case TempEditors:
			t.patterns = append(t.patterns, editorNames...)
		case TempRsync:
			t.rsync = true
		default:
			t.patterns = append(t.patterns, p)
		}
	}
	return t
}

// match tells whether a name is one that waits for its rename.
func (t tempNames) match(name string) bool {
	for _, p := range t.patterns {
		if ok, _ := path.Match(p, name); ok {
			return true
		}
	}
	return t.rsync && rsyncName(name)
}

// rsyncName recognises .NAME.XXXXXX, six letters or digits that mkstemp chose. Six small letters alone are taken for a
// word, as in .my.config: mkstemp chooses such once in two hundred times, and then a file is uploaded a little early.
func rsyncName(name string) bool {
	dot := strings.LastIndexByte(name, '.')
	if dot < 2 || name[0] != '.' || len(name)-dot-1 != 6 {
		return false
	}
	chosen := false
	for _, c := range []byte(name[dot+1:]) {
		switch {
		case c >= 'a' && c <= 'z':
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			chosen = true
		default:
			return false
		}
	}
	return chosen
}

// madeTemp has a file under a temporary name wait for its rename. The caller holds n.mu, if anybody else has n.
func (t *uploadTree) madeTemp(n *staged, name string) {
	if n.kind == syscall.S_IFREG && t.temps.match(name) {
		n.temp = tempWaits
	}
}

// named ends the wait of a file for its rename: it has come, or nobody waits for it any longer.
func (t *uploadTree) named(n *staged) {
	n.mu.Lock()
	waited := n.temp == tempWaits
	if waited {
		n.temp, n.unstated = tempEnded, n.unstated || n.writers == 0
	}
	n.mu.Unlock()
	if waited {
		t.settle(n)
	}
}

// endWaits has the files that wait for their rename count as complete.
func (t *uploadTree) endWaits() {
	for _, n := range t.takeClosed(true) {
		t.named(n)
		t.table.release(n)
	}
}

// tellNames tells of all names of a file that waited, but the one it was told of by: they did not count before.
func (t *uploadTree) tellNames(n *staged, f File) {
	for _, path := range t.table.paths(n) {
		if path != f.Path {
			t.changed(Change{Kind: Made, Path: path, File: f})
		}
	}
}
