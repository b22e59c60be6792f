package payment

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The environment of a child process that writes in a book until it is killed.
const (
	envChildBook = "HOLDFAST_TEST_BOOK"
	envChildName = "HOLDFAST_TEST_BOOK_NAME"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(envChildBook); path != "" {
		childWrites(path, os.Getenv(envChildName))
	}
	os.Exit(m.Run())
}

// childWrites opens channels and settles 3 of the 10 in each, and prints a line when both are sure.
func childWrites(path, name string) {
	t := &testing.T{}
	key, _ := testKey(t, name)
	_, payee := testKey(t, "payee")
	c := newClock()
	b, err := OpenBook(path, BookConfig{Now: c.now})
	for n := 1; err == nil; n++ {
		if err = openAndSettle(context.Background(), b, key, payee, c, 1); err == nil {
			fmt.Println(n)
		}
	}
	fmt.Fprintln(os.Stderr, "child:", err)
	os.Exit(1)
}

// TestBookSurvivesKills: processes that write in one book are killed in the middle of it. What one
// of them was told is in the book, at most one change more, and the others go on.
func TestBookSurvivesKills(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "book.json")
	c := newClock()
	_, payee := testKey(t, "payee")
	least, most := 0, 0
	for round := range 6 {
		counts := make(chan int)
		for w := range 2 {
			go func() { counts <- runUntilKilled(t, path, fmt.Sprintf("child %d %d", round, w), 3+2*round) }()
		}
		for range 2 {
			n := <-counts
			least, most = least+3*n, most+3*n+3
		}
		b, err := OpenBook(path, BookConfig{Now: c.now})
		must(t, err)
		got, err := b.Account(t.Context(), payee)
		must(t, err)
		if got.Balance < int64(least) || got.Balance > int64(most) {
			t.Fatalf("round %d: payee has %d, not %d to %d", round, got.Balance, least, most)
		}
		checkBook(t, b)
		key, _ := testKey(t, fmt.Sprint("parent ", round))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		must(t, openAndSettle(ctx, b, key, payee, c, 1)) // no lock was left behind
		cancel()
		least, most = least+3, most+3
	}
}

// runUntilKilled kills a child soon after it has told of so many changes, and returns of how many it told.
func runUntilKilled(t *testing.T, path, name string, lines int) int {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), envChildBook+"="+path, envChildName+"="+name)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Error(err)
		return 0
	}
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return 0
	}
	n, told := 0, bufio.NewScanner(out)
	for told.Scan() {
		v, err := strconv.Atoi(strings.TrimSpace(told.Text()))
		if err != nil {
			t.Errorf("child says %q", told.Text())
			break
		}
		if n = v; n == lines {
			cmd.Process.Kill() // what it told before it died is read to the end
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	if n < lines {
		t.Errorf("child told of %d changes, not %d", n, lines)
	}
	return n
}
