package fs

import (
	"path"
	"strings"
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
		return tempNames{patterns: editorNames, rsync: true}
	}
	return tempNames{patterns: configured}
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
