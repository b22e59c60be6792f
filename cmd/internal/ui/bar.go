package ui

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
)

// Bar shows how far a work with bytes has come. On anything but a terminal it shows nothing. Its methods may be
// called by several goroutines.
type Bar struct {
	done atomic.Int64

	mu  sync.Mutex // guards bar
	bar *progressbar.ProgressBar
}

// NewBar starts a bar of total bytes; a total of 0 or less is not known.
func NewBar(w io.Writer, title string, total int64) *Bar {
	b := &Bar{}
	if !IsTerminal(w) {
		return b
	}
	if total <= 0 {
		total = -1
	}
	b.bar = progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(title),
		progressbar.OptionShowBytes(true),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionThrottle(80*time.Millisecond),
		progressbar.OptionSetWidth(28),
		progressbar.OptionShowElapsedTimeOnFinish(),
		progressbar.OptionSpinnerType(14),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetTheme(progressbar.Theme{Saucer: "━", SaucerHead: "━", SaucerPadding: "─", BarStart: "", BarEnd: ""}),
	)
	return b
}

// Add counts n bytes more.
func (b *Bar) Add(n int) {
	b.done.Add(int64(n))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bar != nil {
		b.bar.Add(n)
	}
}

// Set says that n of total bytes are done; a total of 0 leaves what was known.
func (b *Bar) Set(n, total uint64) {
	b.done.Store(int64(n))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bar == nil {
		return
	}
	if total > 0 && int64(total) != b.bar.GetMax64() {
		b.bar.ChangeMax64(int64(total))
	}
	b.bar.Set64(int64(n))
	b.bar.RenderBlank() // by itself it shows whole per cents alone, and none at 0
}

// Note prints a line of its own on w, where the bar is too.
func (b *Bar) Note(w io.Writer, format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bar != nil {
		b.bar.Clear()
	}
	fmt.Fprintf(w, format+"\n", args...)
}

// Bytes is what was counted, shown or not.
func (b *Bar) Bytes() uint64 { return uint64(b.done.Load()) }

// End takes the bar off the screen. A second call does nothing.
func (b *Bar) End() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bar != nil {
		b.bar.Finish()
		b.bar.Clear()
		b.bar = nil
	}
}
