package repo

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"github.com/holdfastfs/holdfast/cmd/internal/hint"
)

func open(t *testing.T, dir string) *Repo {
	t.Helper()
	r, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func mustClose(t *testing.T, r *Repo) {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenMakesARepoAndKeepsIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "repo")
	r := open(t, dir)
	key, port := r.Key, r.Config.Port
	if port == 0 {
		t.Error("no port was chosen")
	}
	mustClose(t, r)

	again := open(t, dir)
	if !again.Key.Equals(key) {
		t.Error("identity changed")
	}
	if again.Config.Port != port {
		t.Errorf("port changed from %d to %d", port, again.Config.Port)
	}
	if again.UncleanStop {
		t.Error("a closed repo counts as unclean")
	}
}

func TestModesAreForTheOwnerAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "r")
	open(t, dir)
	for name, want := range map[string]os.FileMode{"": 0o700, identityFile: 0o600, configFile: 0o600, blocksDir: 0o700} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := st.Mode().Perm(); got != want {
			t.Errorf("%q has mode %o, want %o", name, got, want)
		}
	}
}

func TestInitTwiceChangesNothing(t *testing.T) {
	dir := t.TempDir()
	cfg := Defaults()
	cfg.Network = "ipfs"
	if made, err := Init(dir, cfg); err != nil || !made {
		t.Fatalf("first init: %v, %v", made, err)
	}
	if made, err := Init(dir, Defaults()); err != nil || made {
		t.Fatalf("second init: %v, %v", made, err)
	}
	if got := open(t, dir).Config.Network; got != "ipfs" {
		t.Errorf("network %q, want ipfs", got)
	}
}

func TestInterruptedInitGoesOn(t *testing.T) {
	dir := t.TempDir()
	if _, err := Init(dir, Defaults()); err != nil {
		t.Fatal(err)
	}
	key, err := readIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(dir, versionFile)) // as if stopped before the last step
	os.Remove(filepath.Join(dir, configFile))
	r := open(t, dir)
	if !r.Key.Equals(key) {
		t.Error("the key of the first attempt is gone")
	}
}

func TestSecondOwnerIsToldThePid(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	_, err := Open(dir, slog.New(slog.DiscardHandler))
	var inUse *InUseError
	if !errors.Is(err, ErrInUse) || !errors.As(err, &inUse) || inUse.Pid != os.Getpid() {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(err.Error(), fmt.Sprintf("in use by pid %d", os.Getpid())) {
		t.Errorf("message %q", err)
	}
	mustClose(t, r)
	open(t, dir)
}

func TestUncleanStopIsNoticed(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	mustClose(t, r)
	if _, err := markRunning(dir); err != nil { // as a killed process leaves it
		t.Fatal(err)
	}
	r = open(t, dir)
	if !r.UncleanStop {
		t.Error("a killed owner left no trace")
	}
	mustClose(t, r)
	if open(t, dir).UncleanStop {
		t.Error("the trace outlived a clean stop")
	}
}

func TestWhatIsNoRepoIsRefused(t *testing.T) {
	put := func(name, text string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	inited := func(then func(*testing.T, string)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if _, err := Init(dir, Defaults()); err != nil {
				t.Fatal(err)
			}
			then(t, dir)
		}
	}
	cases := []struct {
		name  string
		spoil func(*testing.T, string)
		want  error
		says  string
	}{
		{"newer", put(versionFile, "99\n"), ErrNewer, "format is 99"},
		{"version not a number", put(versionFile, "x"), ErrDamaged, "version"},
		{"other files", put("thesis.tex", ""), ErrForeign, "thesis.tex"},
		{"no key", inited(func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, identityFile)) }), ErrDamaged, identityFile},
		{"torn key", inited(put(identityFile, "CAES")), ErrDamaged, identityFile},
		{"unknown setting", inited(put(configFile, "colour: blue\n")), ErrSetting, `"colour"`},
		{"bad value", inited(put(configFile, "\ntimeout: soon\n")), ErrSetting, "line 2: "},
		{"not yaml", inited(put(configFile, "a: [\n")), ErrSetting, configFile},
		{"torn database", inited(func(t *testing.T, dir string) {
			os.Mkdir(filepath.Join(dir, dbDir), 0o700)
			put(filepath.Join(dbDir, badger.ManifestFilename), "rubbish")(t, dir)
		}), ErrDamaged, "database"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			c.spoil(t, dir)
			r, err := Open(dir, slog.New(slog.DiscardHandler))
			if err == nil {
				r.Close()
				t.Fatal("opened")
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.says)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %q", err)
			}
			if hint.Of(err) == "" {
				t.Error("no hint")
			}
			if _, err := os.Stat(filepath.Join(dir, runningFile)); !errors.Is(err, os.ErrNotExist) {
				t.Error("a refused repo is marked as running")
			}
		})
	}
}

func TestNewerRepoIsNotTouched(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, versionFile), []byte("2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrNewer) {
		t.Fatalf("got %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory now holds %v (%v)", entries, err)
	}
}

func TestForeignDirectoryIsNotTouched(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(dir, Defaults()); !errors.Is(err, ErrForeign) {
		t.Fatalf("got %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory now holds %v (%v)", entries, err)
	}
}

func TestSystemErrorsGetAHint(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EACCES, syscall.EPERM, syscall.ENOTDIR} {
		err := explain("/r", &os.PathError{Op: "open", Path: "/r/version", Err: errno})
		if hint.Of(err) == "" || !errors.Is(err, errno) {
			t.Errorf("%v: %v, hint %q", errno, err, hint.Of(err))
		}
	}
	full := dbError("/r", &os.PathError{Op: "write", Path: "/r/db/1.mem", Err: syscall.ENOSPC})
	if errors.Is(full, ErrDamaged) || !strings.Contains(hint.Of(full), "space") {
		t.Errorf("a full disk reads as %v (%s)", full, hint.Of(full))
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file, slog.New(slog.DiscardHandler)); err == nil || hint.Of(err) == "" {
		t.Errorf("a file as repo: %v", err)
	}
}

func TestPathPrecedence(t *testing.T) {
	t.Setenv("HOME", "/home/x")
	t.Setenv(EnvPath, "")
	for _, c := range []struct{ flag, env, want string }{
		{"", "", "/home/x/.holdfast"},
		{"", "/env", "/env"},
		{"/flag", "/env", "/flag"},
	} {
		t.Setenv(EnvPath, c.env)
		got, err := Path(c.flag)
		if err != nil || got != c.want {
			t.Errorf("flag %q, env %q: %q, %v", c.flag, c.env, got, err)
		}
	}
}

func TestPeersAndMountsSurvive(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	steps := []error{
		r.SavePeer(KnownPeer{ID: "a", Addresses: []string{"/ip4/127.0.0.1/tcp/1"}}),
		r.SavePeer(KnownPeer{ID: "b"}),
		r.SavePeer(KnownPeer{ID: "a", Addresses: []string{"/ip4/127.0.0.1/tcp/2"}}),
		r.ForgetPeer("b"),
		r.ForgetPeer("never known"),
		r.SaveMount(SavedMount{Dir: "/m", CID: "bafy"}),
		r.SaveMount(SavedMount{Dir: "/n"}),
		r.ForgetMount("/n"),
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	mustClose(t, r)
	r = open(t, dir)
	peers, err := r.Peers()
	if err != nil || len(peers) != 1 || peers[0].ID != "a" || peers[0].Addresses[0] != "/ip4/127.0.0.1/tcp/2" {
		t.Errorf("peers %v, %v", peers, err)
	}
	mounts, err := r.Mounts()
	if err != nil || len(mounts) != 1 || mounts[0] != (SavedMount{Dir: "/m", CID: "bafy"}) {
		t.Errorf("mounts %v, %v", mounts, err)
	}
}

// TestLogsCutOffByAKill opens a repo where the database died while it made a log, and while it removed one.
func TestLogsCutOffByAKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repo")
	r := open(t, dir)
	if err := r.SavePeer(KnownPeer{ID: "somebody"}); err != nil {
		t.Fatal(err)
	}
	path := r.DB.Opts().Dir
	mustClose(t, r)
	for _, name := range []string{"00000.mem", "00077.mem", "000099.vlog"} {
		if err := os.WriteFile(filepath.Join(path, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r = open(t, dir)
	peers, err := r.Peers()
	if err != nil || len(peers) != 1 {
		t.Errorf("%d peers are remembered, %v", len(peers), err)
	}
}
