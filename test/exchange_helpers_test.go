package test

import (
	"strings"
	"testing"
)

// Where `status --json` has more figures that tests look at.
const (
	bytesOut   = "exchange.bytes_out"
	bytesIn    = "exchange.bytes_in"
	spentToday = "money.spent_today"
	owed       = "money.owed"
	charged    = "money.charged"
)

// contains fails the test unless text has all of words.
func contains(t *testing.T, what, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if word == "" || !strings.Contains(text, word) {
			t.Errorf("%s lacks %q: %s", what, word, text)
		}
	}
}
