package ui

import (
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// IsTerminal says whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}

// Colourful says whether w wants colour.
func Colourful(w io.Writer) bool {
	return IsTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// Printable returns s fit for a terminal: control characters, which could move its cursor or worse, and what is not
// UTF-8 are quoted.
func Printable(s string) string {
	clean := func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsGraphic(r) }
	if !strings.ContainsFunc(s, clean) {
		return s
	}
	return strconv.Quote(s)
}
