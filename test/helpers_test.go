package test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfastfs/holdfast/test/swarm"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hashAll is the hash of all that r gives, as sha256sum prints it.
func hashAll(t *testing.T, r io.Reader) string {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// refused runs a command that has to fail with code and one line on standard
// error, a hint of one more line allowed, that contains each of words.
func refused(t *testing.T, n *swarm.Node, code int, words []string, args ...string) {
	t.Helper()
	out, err := n.Run(args...)
	complains(t, "holdfast "+strings.Join(args, " "), out, err, code, words)
}

// complains checks how a command that had to fail told its user.
func complains(t *testing.T, what, out string, err error, code int, words []string) {
	t.Helper()
	var exit *swarm.ExitError
	if !errors.As(err, &exit) {
		t.Errorf("%s: succeeded (%v) and printed %q", what, err, out)
		return
	}
	message := strings.TrimSpace(exit.Stderr)
	t.Logf("%s: code %d: %s", what, exit.Code, message)
	if exit.Code != code {
		t.Errorf("%s: code %d, want %d: %s", what, exit.Code, code, message)
	}
	if lines := strings.Count(message, "\n") + 1; message == "" || lines > 2 {
		t.Errorf("%s: a message is one line and maybe a hint, not: %q", what, message)
	}
	for _, word := range words {
		if !strings.Contains(strings.ToLower(message), strings.ToLower(word)) {
			t.Errorf("%s: %q is not in %q", what, word, message)
		}
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

// Where `status --json` has the figures the tests look at.
const (
	blocksIn    = "exchange.blocks_in"
	blocksTwice = "exchange.duplicate_blocks"
	openWants   = "exchange.wants"
	goroutines  = "memory.goroutines"
	storeBytes  = "store.used_bytes"
)

// listen leaves a unix socket at path until the test ends.
func listen(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	must(t, err)
	t.Cleanup(func() { l.Close() })
}
