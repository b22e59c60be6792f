package ui

import (
	"bufio"
	"encoding/json"
	"io"
	"strings"
	"unicode/utf8"
)

// Table prints rows in columns below a heading; the last column is as wide as its text. A heading that begins
// with ">" stands to the right.
type Table struct {
	Heads []string
	Rows  [][]string
}

// Add appends a row.
func (t *Table) Add(cells ...string) { t.Rows = append(t.Rows, cells) }

// Print writes the table; without rows it writes nothing.
func (t *Table) Print(w io.Writer) error {
	if len(t.Rows) == 0 {
		return nil
	}
	heads, right := make([]string, len(t.Heads)), make([]bool, len(t.Heads))
	for i, h := range t.Heads {
		heads[i] = strings.TrimPrefix(h, ">")
		right[i] = heads[i] != h
	}
	all := append([][]string{heads}, t.Rows...)
	widths := make([]int, len(heads))
	for _, row := range all {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	out := bufio.NewWriter(w)
	for _, row := range all {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			switch {
			case right[i]:
				out.WriteString(pad + cell)
			case i == len(row)-1:
				out.WriteString(cell)
			default:
				out.WriteString(cell + pad)
			}
			if i < len(row)-1 {
				out.WriteString("  ")
			}
		}
		out.WriteByte('\n')
	}
	return out.Flush()
}

// JSON writes v as people and programs can read it; a nil slice is an empty list.
func JSON[T any](w io.Writer, v T) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
