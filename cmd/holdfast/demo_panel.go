package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/holdfastfs/holdfast/cmd/internal/ui"
)

// gauge is one line of a panel: how much of something is done, and what is to be said of it.
type gauge struct {
	label       string
	done, total int64 // a total of 0 has no bar
	text        string
}

const (
	gaugeLabel = 12 // columns
	gaugeBar   = 28
	gaugeEvery = 150 * time.Millisecond
)

// live runs work as a step. On a terminal, sample says again and again how it goes, in a panel below the step's
// line; it may return nil for nothing new.
func (d *demo) live(ctx context.Context, title string, sample func(context.Context) []gauge, work func() (string, error)) error {
	return d.story.Step(title, func() (string, error) {
		if !ui.IsTerminal(d.app.out) {
			return work()
		}
		p := &panel{w: d.app.out, colour: ui.Colourful(d.app.out)}
		p.width, p.height = terminalSize(d.app.out)
		watching, stop := context.WithCancel(ctx)
		var watch sync.WaitGroup
		watch.Go(func() { p.follow(watching, sample) })
		line, err := work()
		stop()
		watch.Wait()
		p.clear()
		return line, err
	})
}

func terminalSize(w io.Writer) (width, height int) {
	if f, ok := w.(interface{ Fd() uintptr }); ok {
		if width, height, err := term.GetSize(int(f.Fd())); err == nil && width > 0 && height > 0 {
			return width, height
		}
	}
	return 80, 24
}

// panel is some lines below the cursor's, drawn over and over.
type panel struct {
	w             io.Writer
	colour        bool
	width, height int
	lines         int // that stand there
}

// follow draws what sample says until ctx ends.
func (p *panel) follow(ctx context.Context, sample func(context.Context) []gauge) {
	tick := time.NewTicker(gaugeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if gauges := sample(ctx); len(gauges) > 0 && ctx.Err() == nil {
				p.draw(gauges)
			}
		}
	}
}

// draw puts gauges where the last ones were.
func (p *panel) draw(gauges []gauge) {
	gauges = gauges[:max(0, min(len(gauges), p.height-2))]
	var b strings.Builder
	p.up(&b)
	for _, g := range gauges {
		b.WriteString("\n\x1b[2K" + p.line(g))
	}
	b.WriteString("\x1b[J")
	p.lines = len(gauges)
	io.WriteString(p.w, b.String())
}

// clear takes the panel off the screen, and the line above it.
func (p *panel) clear() {
	var b strings.Builder
	p.up(&b)
	b.WriteString("\r\x1b[J")
	p.lines = 0
	io.WriteString(p.w, b.String())
}

func (p *panel) up(b *strings.Builder) {
	if p.lines > 0 {
		fmt.Fprintf(b, "\x1b[%dA", p.lines)
	}
}

// line is a gauge on one line of the terminal.
func (p *panel) line(g gauge) string {
	label := fmt.Sprintf("      %-*s ", gaugeLabel, g.label)
	left := p.width - 1 - utf8.RuneCountInString(label)
	bar := ""
	if g.total > 0 && left > gaugeBar+1 {
		full := int(min(gaugeBar, max(0, g.done)*gaugeBar/g.total))
		bar = p.paint("32", strings.Repeat("━", full)) + p.paint("2", strings.Repeat("─", gaugeBar-full)) + " "
		left -= gaugeBar + 1
	}
	text := []rune(g.text)
	return p.paint("2", label) + bar + string(text[:max(0, min(len(text), left))])
}

func (p *panel) paint(code, text string) string {
	if !p.colour || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
