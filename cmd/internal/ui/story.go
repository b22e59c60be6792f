package ui

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Story prints the steps of a demonstration: a line a step when it has ended, what it showed below it. On a
// terminal the running step stands there meanwhile.
type Story struct {
	w      io.Writer
	colour bool
	live   bool
}

// NewStory returns a story that is told to w.
func NewStory(w io.Writer) *Story {
	return &Story{w: w, colour: Colourful(w), live: IsTerminal(w)}
}

// Title begins a chapter.
func (s *Story) Title(format string, args ...any) {
	fmt.Fprintf(s.w, "\n%s\n\n", s.paint("1", fmt.Sprintf(format, args...)))
}

// Step runs work under a title and prints the line that work returns, with the time it took.
func (s *Story) Step(title string, work func() (string, error)) error {
	if s.live {
		fmt.Fprintf(s.w, "  %s %s", s.paint("33", "·"), title)
	}
	start := time.Now()
	result, err := work()
	if s.live {
		fmt.Fprint(s.w, "\r\x1b[2K")
	}
	return s.ended(title, result, time.Since(start), err)
}

// StepWithBar is Step with a bar of total bytes, which work moves, in place of the waiting line.
func (s *Story) StepWithBar(title string, total int64, work func(*Bar) (string, error)) error {
	bar := NewBar(s.w, "  "+title, total)
	start := time.Now()
	result, err := work(bar)
	bar.End()
	return s.ended(title, result, time.Since(start), err)
}

// ended prints what came of a step and returns err.
func (s *Story) ended(title, result string, took time.Duration, err error) error {
	if err != nil {
		fmt.Fprintf(s.w, "  %s %s\n", s.paint("31", "✗"), title)
		return err
	}
	line := fmt.Sprintf("  %s %-46s %9s", s.paint("32", "✓"), title, Duration(took))
	if result != "" {
		line += "   " + s.paint("2", result)
	}
	fmt.Fprintln(s.w, line)
	return nil
}

// Show prints text below a step, line by line.
func (s *Story) Show(text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		fmt.Fprintf(s.w, "      %s\n", s.paint("2", strings.TrimRight(line, "\n")))
	}
}

// Say prints a line of its own.
func (s *Story) Say(format string, args ...any) {
	fmt.Fprintf(s.w, "    %s\n", fmt.Sprintf(format, args...))
}

func (s *Story) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
