package ui

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
)

// Bytes is n bytes as people say it.
func Bytes(n uint64) string { return humanize.IBytes(n) }

// Count is n with separators and its noun, in the plural where it has to be.
func Count(n uint64, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return humanize.Comma(int64(n)) + " " + noun
}

// Rate is n bytes in d.
func Rate(n uint64, d time.Duration) string {
	if d <= 0 {
		return "-"
	}
	return humanize.IBytes(uint64(float64(n)/d.Seconds())) + "/s"
}

// Duration is d with three digits.
func Duration(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// Short keeps the ends of a long CID or peer ID.
func Short(s string) string {
	if len(s) <= 20 {
		return s
	}
	return s[:10] + "…" + s[len(s)-6:]
}
