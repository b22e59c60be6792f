package test

import "testing"

// listing is everything of a tree that --preserve keeps, a line a name.
const listing = `cd "$1"; find . -printf '%p %y %#m %T@ %l\n' | sort`

// TestPreserve carries modes, times to the nanosecond and symlinks through
// add, mount and `cp -a`.
func TestPreserve(t *testing.T) {
	s, a, b := near(t)
	tree := s.Mkdir("tree")
	s.RandomFile(5<<20, 1, "tree", "big")
	s.MustSh(`cd "$1"
		for mode in 0644 0600 0755 0111 0444 0000 4755 2755 1666; do echo $mode > m$mode; chmod $mode m$mode; done
		mkdir -m 0700 private; mkdir -m 1777 sticky; mkdir -m 0555 locked; mkdir -p deep/er/est; echo x > deep/er/est/file; : > empty
		ln -s big link; ln -s /no/where/at/all dangling; ln -s ../tree/deep up
		# rsync leaves times alone that are the same to the second: far from now, all of them.
		find . -exec touch -h -d '2015-05-05 05:05:05.050505050Z' {} +
		touch -d '2001-02-03 04:05:06.123456789Z' m0644; touch -d '@0' m0600; touch -d '@-86400.5' m0755; touch -d '@1.000000001' empty
		touch -d '2038-01-19 03:14:08.999999999Z' big; touch -h -d '1999-12-31 23:59:59.000000100Z' link
		touch -d '2010-10-10 10:10:10.101010101Z' deep/er/est deep/er private sticky; touch -d '2020-02-02 02:02:02.020202020Z' .`, tree)
	m := b.Mount("m", a.Add(tree, "--preserve"))
	want := s.MustSh(listing, tree)
	same := func(what, got, want string) {
		if got != want {
			t.Errorf("%s:\n%swant:\n%s", what, got, want)
		}
	}
	compare := func(what, dir string) {
		same(what, s.MustSh(listing, dir), want)
		s.MustSh(`diff -r --no-dereference "$1" "$2"`, tree, dir)
	}
	compare("mounted", m)
	compare("second look", m)
	s.MustSh(`cp -a "$1/." "$2"`, m, s.Mkdir("copied"))
	compare("copied with cp -a", s.Path("copied"))
	s.MustSh(`rsync -a "$1/" "$2"`, m, s.Mkdir("rsynced"))
	compare("copied with rsync -a", s.Path("rsynced"))
	b.Must("get", a.Add(tree, "--preserve"), "-o", s.Path("got"))
	// get gives permissions, never setuid, setgid or sticky bits.
	plain := listing + ` | sed -E 's/ 0?[0-7]?([0-7]{3}) / \1 /'`
	same("got", s.MustSh(plain, s.Path("got")), s.MustSh(plain, tree))
	s.MustSh(`diff -r --no-dereference "$1" "$2"`, tree, s.Path("got"))
}

// TestWithoutPreserve shows what a tree looks like whose DAG has no attributes:
// readable by all, the same on every look.
func TestWithoutPreserve(t *testing.T) {
	s, a, b := near(t)
	tree := s.Mkdir("tree")
	s.MustSh(`cd "$1"; echo x > file; chmod 000 file; mkdir dir; echo y > dir/y; ln -s file link`, tree)
	first, second := b.Mount("m1", a.Add(tree)), b.Mount("m2", a.Add(tree))
	if one, two := s.MustSh(listing, first), s.MustSh(listing, second); one != two {
		t.Errorf("two mounts of one CID differ:\n%s\n%s", one, two)
	}
	s.MustSh(`test "$(stat -c %a "$1/file")" = 444; test "$(stat -c %a "$1/dir")" = 555; test "$(cat "$1/link")" = x`, first)
}
