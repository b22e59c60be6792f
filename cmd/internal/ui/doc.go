// Package ui is what people see on a terminal: tables, progress bars, figures and the demo's steps.
//
// The rules are few. Results go to standard output, everything else to standard error. Colour, bars and
// redrawing are for terminals; a pipe gets plain lines. NO_COLOR and TERM=dumb are obeyed. Text that came
// from content or peers goes through [Printable] first.
package ui
