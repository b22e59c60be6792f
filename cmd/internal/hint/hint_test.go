package hint

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestHintTravelsWithTheError(t *testing.T) {
	err := Add(fmt.Errorf("read it: %w", io.ErrUnexpectedEOF), "try %s", "again")
	wrapped := fmt.Errorf("do it: %w", err)
	if got := Of(wrapped); got != "try again" {
		t.Errorf("hint %q, want %q", got, "try again")
	}
	if !errors.Is(wrapped, io.ErrUnexpectedEOF) {
		t.Error("the cause is hidden by the hint")
	}
	if got := wrapped.Error(); got != "do it: read it: unexpected EOF" {
		t.Errorf("text changed to %q", got)
	}
}

func TestFirstHintWins(t *testing.T) {
	err := Add(Add(io.EOF, "near the cause"), "far from it")
	if got := Of(err); got != "near the cause" {
		t.Errorf("hint %q", got)
	}
	if Add(nil, "x") != nil || Of(nil) != "" || Of(io.EOF) != "" {
		t.Error("an error or a hint came from nowhere")
	}
}
