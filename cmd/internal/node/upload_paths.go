package node

import (
	"path"
	"strings"

	"github.com/holdfastfs/holdfast/fs"
)

// pathTree is where the files of an upload directory lie: names below directories, so that a rename moves one of either
// and what lies below goes with it. Whoever uses it holds the lock above it.
type pathTree struct {
	root  pathDir
	names map[fs.FileID][]pathName // of each file, the one noted last at last
}

// pathDir is a directory. One without files and directories is not kept.
type pathDir struct {
	parent *pathDir // nil: the root's
	name   string
	dirs   map[string]*pathDir
	files  map[string]fs.FileID
}

// pathName is a name of a file.
type pathName struct {
	dir  *pathDir
	name string
}

func newPathTree() *pathTree { return &pathTree{names: make(map[fs.FileID][]pathName)} }

// path is one of the names that a file has.
func (t *pathTree) path(id fs.FileID) (string, bool) {
	all := t.names[id]
	if len(all) == 0 {
		return "", false
	}
	last := all[len(all)-1]
	parts := []string{last.name}
	for d := last.dir; d.parent != nil; d = d.parent {
		parts = append(parts, d.name)
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return strings.Join(parts, "/"), true
}

// note remembers a name of a file.
func (t *pathTree) note(id fs.FileID, p string) {
	dir, name := path.Split(p)
	d := t.make(strings.TrimSuffix(dir, "/"))
	if d.files[name] == id {
		t.unname(id, d, name)
	} else {
		t.clear(d, name)
	}
	d.add(name, id)
	t.names[id] = append(t.names[id], pathName{d, name})
}

// forget ends all that is known of a file.
func (t *pathTree) forget(id fs.FileID) {
	for _, n := range t.names[id] {
		delete(n.dir.files, n.name)
		n.dir.prune()
	}
	delete(t.names, id)
}

// remove says that nothing has a path any more.
func (t *pathTree) remove(p string) {
	if d, name := t.find(p); d != nil {
		t.clear(d, name)
		d.prune()
	}
}

// move says that what was at a path, with all below it, is at another, and what was there is gone.
func (t *pathTree) move(from, to string) {
	t.remove(to)
	taken := t.take(from)
	t.put(to, taken)
}

// swap says that two paths have changed places.
func (t *pathTree) swap(a, b string) {
	atA, atB := t.take(a), t.take(b)
	t.put(a, atB)
	t.put(b, atA)
}

// placed is what is at a path: a directory, a file, or nothing that is known.
type placed struct {
	dir  *pathDir
	file fs.FileID
}

// take takes out what is at a path.
func (t *pathTree) take(p string) (at placed) {
	d, name := t.find(p)
	if d == nil {
		return at
	}
	if at.dir = d.dirs[name]; at.dir != nil {
		delete(d.dirs, name)
	} else if id, ok := d.files[name]; ok {
		at.file = id
		delete(d.files, name)
		t.unname(id, d, name)
	}
	d.prune()
	return at
}

// put puts something at a path where nothing is.
func (t *pathTree) put(p string, at placed) {
	dir, name := path.Split(p)
	switch {
	case at.dir != nil:
		d := t.make(strings.TrimSuffix(dir, "/"))
		if d.dirs == nil {
			d.dirs = make(map[string]*pathDir)
		}
		d.dirs[name], at.dir.parent, at.dir.name = at.dir, d, name
	case at.file != fs.FileID{}:
		t.note(at.file, p)
	}
}

// clear forgets what is under a name: a file's name, or all names below.
func (t *pathTree) clear(d *pathDir, name string) {
	if id, ok := d.files[name]; ok {
		delete(d.files, name)
		t.unname(id, d, name)
	}
	if sub := d.dirs[name]; sub != nil {
		delete(d.dirs, name)
		t.drop(sub)
	}
}

// drop forgets all names in a directory that is out of the tree.
func (t *pathTree) drop(d *pathDir) {
	for name, id := range d.files {
		t.unname(id, d, name)
	}
	for _, sub := range d.dirs {
		t.drop(sub)
	}
}

// unname takes one name off a file.
func (t *pathTree) unname(id fs.FileID, d *pathDir, name string) {
	all := t.names[id]
	for i, n := range all {
		if n.dir == d && n.name == name {
			all = append(all[:i], all[i+1:]...)
			break
		}
	}
	if len(all) == 0 {
		delete(t.names, id)
	} else {
		t.names[id] = all
	}
}

// find finds the directory that a path is in; nil if it is not known.
func (t *pathTree) find(p string) (*pathDir, string) {
	d := &t.root
	for {
		name, rest, more := strings.Cut(p, "/")
		if !more {
			return d, name
		}
		if d = d.dirs[name]; d == nil {
			return nil, ""
		}
		p = rest
	}
}

// make finds a directory, or makes it.
func (t *pathTree) make(p string) *pathDir {
	d := &t.root
	for name := range strings.SplitSeq(p, "/") {
		if name == "" {
			continue
		}
		sub := d.dirs[name]
		if sub == nil {
			sub = &pathDir{parent: d, name: name}
			if d.dirs == nil {
				d.dirs = make(map[string]*pathDir)
			}
			d.dirs[name] = sub
		}
		d = sub
	}
	return d
}

func (d *pathDir) add(name string, id fs.FileID) {
	if d.files == nil {
		d.files = make(map[string]fs.FileID)
	}
	d.files[name] = id
}

// prune takes out a directory in which nothing is left, and those above it.
func (d *pathDir) prune() {
	for d.parent != nil && len(d.files) == 0 && len(d.dirs) == 0 {
		if d.parent.dirs[d.name] == d {
			delete(d.parent.dirs, d.name)
		}
		d = d.parent
	}
}
