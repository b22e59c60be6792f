package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/repo"
)

// nowhere is the CID of a block that nobody has.
const nowhere = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"

func TestContentThroughTheCommands(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one := w.file("tree/one", "first")
	w.file("tree/sub/two", "second")
	added := w.must("add", "tree", one)
	lines := strings.Split(added, "\n")
	if len(lines) != 2 || !strings.HasSuffix(lines[0], "\ttree") || !strings.HasSuffix(lines[1], "\tone") {
		t.Fatalf("add printed %q", added)
	}
	root, _, _ := strings.Cut(lines[0], "\t")
	if got := w.must("add", "-q", "tree"); got != root {
		t.Errorf("add -q printed %q, not %s", got, root)
	}
	if got := w.must("cat", "/ipfs/"+root+"/one", root+"/sub/two"); got != "firstsecond" {
		t.Errorf("cat printed %q", got)
	}
	if got := w.must("ls", root); got != "one\nsub" {
		t.Errorf("ls printed %q", got)
	}
	var entries []api.Entry
	if err := json.Unmarshal([]byte(w.must("ls", "--json", root)), &entries); err != nil || len(entries) != 2 || entries[0].Kind != api.KindFile {
		t.Errorf("ls --json: %v, %v", entries, err)
	}
	w.must("get", root+"/sub")
	if b, err := os.ReadFile(filepath.Join(w.dir, "sub", "two")); err != nil || string(b) != "second" {
		t.Errorf("get wrote %q, %v", b, err)
	}
	if got := w.must("pins"); !strings.Contains(got, root) {
		t.Errorf("pins printed %q", got)
	}
	w.must("unpin", root)
	if got := w.must("gc"); !strings.HasPrefix(got, "dropped ") {
		t.Errorf("gc printed %q", got)
	}
}

func TestEverythingThatPrintsATableHasJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.must("add", "-q", w.file("f", "content"))
	w.daemon()
	for _, args := range [][]string{{"id"}, {"peers"}, {"mounts"}, {"pins"}, {"status"}, {"gc"}, {"ls", root}, {"stat", root}, {"add", "f"}} {
		out := w.must(append(args, "--json")...)
		if !json.Valid([]byte(out)) || out == "null" {
			t.Errorf("%v --json printed %q", args, out)
		}
	}
	var id api.ID
	if err := json.Unmarshal([]byte(w.must("id", "--json")), &id); err != nil || len(id.Addresses) == 0 ||
		!strings.HasSuffix(id.Addresses[0], "/p2p/"+id.ID) || !id.Daemon {
		t.Errorf("id: %+v, %v", id, err)
	}
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.must("add", "-q", w.file("tree/file", "content"), "--pin")
	dir := w.must("add", "-q", "tree")
	w.file("full/file", "")
	w.daemon()
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"cat", 2, "at least one cid"},
		{"get a b", 2, "one cid is wanted, 2 given"},
		{"mount", 2, "a cid and a directory"},
		{"mout", 2, `"mout" is no command`},
		{"status --colour", 2, "--colour"},
		{"status --log-level loud", 2, "--log-level"},
		{"daemon --timeout soon", 2, "--timeout"},
		{"daemon --network moon", 2, `"moon" is none of local, ipfs`},
		{"cat --timeout soon " + root, 2, "--timeout"},
		{"add - x", 2, "stands alone"},
		{"cat hello", 1, `"hello" is not a cid`},
		{"get " + root[:40], 1, root[:40]},
		{"pin " + dir + "/file", 1, "without a path"},
		{"mount bafzaajaiaejcbplnnrmzwtqjynoc2pkpmr4pmtbvfcnpfwfcmc2iziz6jrxmlkjm full", 1, "codec libp2p-key is not supported"},
		{"cat --timeout 50ms " + nowhere, 1, nowhere},
		{"get --timeout 50ms " + nowhere + " -o out", 1, nowhere},
		{"stat --timeout 50ms " + nowhere, 1, nowhere},
		{"pin --timeout 50ms " + nowhere, 1, nowhere},
		{"mount --timeout 50ms " + nowhere + " empty", 1, nowhere},
		{"cat " + dir, 1, "is a directory"},
		{"cat " + dir + "/file/deeper", 1, "not a directory"},
		{"cat " + dir + "/nothing", 1, "no such name"},
		{"cat " + dir + "/../x", 1, "\"..\""},
		{"get " + root + " -o full", 1, "it exists"},
		{"add nothing", 1, "add nothing: no such file"},
		{"unpin " + nowhere, 1, "is not pinned"},
		{"connect nowhere", 1, `"nowhere" is not a multiaddr`},
		{"peers --forget nobody", 1, `"nobody" is not a peer id`},
		{"umount full", 1, "not a holdfast mount"},
		{"mount " + dir + " full", 1, "full"},
		{"mount --detach " + dir + " full", 1, "full"},
		{"mount " + dir + " missing", 1, "missing"},
		{"--repo full status", 1, "not a holdfast repo"},
		{"--repo tree/file status", 1, "tree/file"},
	} {
		w.refuses(c.code, c.says, strings.Fields(c.args)...)
	}
	if _, err := os.Lstat(filepath.Join(w.dir, "out")); err == nil {
		t.Error("a failed get left its output")
	}
}

// refuses runs a command that has to fail with a line, and perhaps a hint.
func (w *world) refuses(code int, says string, args ...string) {
	w.t.Helper()
	if len(args) > 0 && strings.Contains(strings.Join(args, " "), "empty") {
		os.MkdirAll(filepath.Join(w.dir, "empty"), 0o755)
	}
	what := "holdfast " + strings.Join(args, " ")
	out, stderr, got := w.run(args...)
	lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
	if got != code || out != "" {
		w.t.Errorf("%s: code %d, want %d; printed %q; said %q", what, got, code, out, stderr)
	}
	if !strings.HasPrefix(lines[0], "holdfast: ") || len(lines) > 2 || len(lines) == 2 && !strings.HasPrefix(lines[1], "  hint: ") {
		w.t.Errorf("%s: one line and perhaps a hint are wanted: %q", what, stderr)
	}
	if !strings.Contains(strings.ToLower(stderr), strings.ToLower(says)) {
		w.t.Errorf("%s: %q is not in %q", what, says, stderr)
	}
}

func TestRepoTroubles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, _ := w.daemon()
	w.refuses(1, fmt.Sprintf("in use by pid %d", p.cmd.Process.Pid), "daemon")
	p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		t.Errorf("SIGTERM: code %d: %s", code, p.err.String())
	}
	if left, _ := filepath.Glob(filepath.Join(w.repo, "*.sock")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	for name, text := range map[string]string{"version": "99\n", "identity.key": "x", "config.yaml": "quota: [\n"} {
		path := filepath.Join(w.repo, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		w.file("repo/"+name, text)
		w.refuses(1, w.repo, "status")
		w.file("repo/"+name, string(good))
	}
	w.must("status")
	w.env = append(w.env, "HOLDFAST_TIMEOUT=never")
	w.refuses(1, "HOLDFAST_TIMEOUT", "status")
}

func TestSettingsReachTheNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must("init", "--quota", "1GB")
	status := func() (st api.Status) {
		if err := json.Unmarshal([]byte(w.must("status", "--json")), &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	if got := status().Store.QuotaBytes; got != 1e9 {
		t.Errorf("quota of config.yaml: %d", got)
	}
	w.env = append(w.env, "HOLDFAST_QUOTA=2GB")
	if got := status().Store.QuotaBytes; got != 2e9 {
		t.Errorf("quota of the environment: %d", got)
	}
	_, c := w.daemon("--quota", "3GB", "--cache-size", "10MiB")
	st, err := c.Status(context.Background())
	if err != nil || st.Store.QuotaBytes != 3e9 || st.Cache.MaxBytes != 10<<20 {
		t.Errorf("quota of the flag: %d, cache %d, %v", st.Store.QuotaBytes, st.Cache.MaxBytes, err)
	}
}

func TestInitIsDoneOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if got := w.must("init"); got != "made repo "+w.repo {
		t.Errorf("init printed %q", got)
	}
	id := w.must("id")
	if got := w.must("init", "--network", "ipfs"); !strings.Contains(got, "nothing changed") {
		t.Errorf("init again printed %q", got)
	}
	if again := w.must("id"); again != id {
		t.Errorf("was %s, is %s", id, again)
	}
	if cfg, err := repo.ReadConfig(w.repo); err != nil || cfg.Network != "local" {
		t.Errorf("%+v, %v", cfg, err)
	}
}

func TestWithoutADaemonCommandsShareTheRepo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must("init")
	var all []*process
	for i := range 4 {
		all = append(all, w.start("add", "-q", w.file(fmt.Sprint("f", i), fmt.Sprint("content ", i))))
	}
	for _, p := range all {
		if code := p.wait(); code != 0 {
			t.Errorf("code %d: %s", code, p.err.String())
		}
	}
	if got := strings.Count(w.must("pins"), "complete"); got != 4 {
		t.Errorf("%d of 4 are pinned", got)
	}
}

func TestInterruptedCommandsEndWith130(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, c := w.daemon()
	wants := func() uint64 {
		st, err := c.Status(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return st.Exchange.Wants
	}
	for _, args := range [][]string{{"cat", nowhere}, {"get", nowhere}, {"pin", nowhere}} {
		p := w.start(args...)
		w.until("the node looks for it", func() bool { return wants() > 0 })
		p.cmd.Process.Signal(syscall.SIGINT)
		if code := p.wait(); code != 130 || p.err.Len() > 0 {
			t.Errorf("%v: code %d, said %q", args, code, p.err.String())
		}
		w.until("nobody looks for it", func() bool { return wants() == 0 })
	}
}

func TestAddFromStandardInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	want := w.must("add", "-q", w.file("f", "the same bytes"))
	p := &process{t: t}
	p.cmd = w.command("add", "-q", "-")
	p.cmd.Stdin = strings.NewReader("the same bytes")
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(); code != 0 || strings.TrimSpace(p.out.String()) != want {
		t.Errorf("code %d, %q, want %s: %s", code, p.out.String(), want, p.err.String())
	}
}

func TestHelpHasExamples(t *testing.T) {
	a := &app{out: os.Stdout, err: os.Stderr, environ: os.LookupEnv}
	for _, cmd := range a.root().Commands() {
		if cmd.Long == "" || cmd.Example == "" && cmd.Name() != "version" {
			t.Errorf("%s has no long help or no example", cmd.Name())
		}
		for name, text := range map[string]string{"short": cmd.Short} {
			if strings.HasSuffix(text, ".") || strings.ToLower(text[:1]) != text[:1] {
				t.Errorf("%s: %s help %q", cmd.Name(), name, text)
			}
		}
	}
	w := newWorld(t)
	if out := w.must("completion", "bash"); !strings.Contains(out, "holdfast") {
		t.Error("no completion")
	}
	if out := w.must(); !strings.Contains(out, "mount") {
		t.Errorf("holdfast alone printed %q", out)
	}
	if out := w.must("version"); !strings.HasPrefix(out, "holdfast "+version) {
		t.Errorf("version printed %q", out)
	}
}
