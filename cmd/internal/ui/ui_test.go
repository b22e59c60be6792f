package ui

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestTableLinesUp(t *testing.T) {
	table := Table{Heads: []string{"NAME", ">BYTES", "CID"}}
	table.Add("ä", "1", "bafy")
	table.Add("long name", "1,024", "Qm")
	var out bytes.Buffer
	if err := table.Print(&out); err != nil {
		t.Fatal(err)
	}
	want := "NAME       BYTES  CID\nä              1  bafy\nlong name  1,024  Qm\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	out.Reset()
	if err := (&Table{Heads: []string{"A"}}).Print(&out); err != nil || out.Len() > 0 {
		t.Errorf("an empty table prints %q (%v)", out.String(), err)
	}
}

func TestForeignTextCannotMoveTheCursor(t *testing.T) {
	for text, want := range map[string]string{
		"plain name.txt": "plain name.txt", "ünï": "ünï", "a\x1b[2Jb": `"a\x1b[2Jb"`, "new\nline": `"new\nline"`, "\xff": `"\xff"`,
	} {
		if got := Printable(text); got != want {
			t.Errorf("%q becomes %s, want %s", text, got, want)
		}
	}
}

func TestFigures(t *testing.T) {
	for got, want := range map[string]string{
		Bytes(64 << 20): "64 MiB", Count(1, "block"): "1 block", Count(12345, "block"): "12,345 blocks",
		Rate(10<<20, time.Second): "10 MiB/s", Rate(1, 0): "-", Duration(1500 * time.Microsecond): "1.5 ms",
		Duration(250 * time.Millisecond): "250 ms", Duration(2500 * time.Millisecond): "2.5 s", Duration(90 * time.Second): "1m30s",
		Short("short"): "short", Short("bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"): "bafybeihdw…quvyku",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestPipesGetNoBarAndNoColour(t *testing.T) {
	var out bytes.Buffer
	bar := NewBar(&out, "get", 100)
	bar.Add(10)
	bar.Set(50, 100)
	bar.End()
	bar.End()
	if out.Len() > 0 {
		t.Errorf("a bar in a pipe: %q", out.String())
	}
	if bar.Bytes() != 50 {
		t.Errorf("counted %d", bar.Bytes())
	}
	s := NewStory(&out)
	s.Title("chapter")
	boom := errors.New("boom")
	if err := s.Step("it works", func() (string, error) { return "so", nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.Step("it fails", func() (string, error) { return "", boom }); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	s.Show("a\nb")
	s.Say("end %d", 1)
	text := out.String()
	if strings.Contains(text, "\x1b") || strings.Contains(text, "\r") {
		t.Errorf("a pipe got terminal codes: %q", text)
	}
	for _, want := range []string{"chapter", "✓ it works", "so\n", "✗ it fails", "      a\n      b\n", "    end 1\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %q", want, text)
		}
	}
}

func TestJSONOfNothingIsReadable(t *testing.T) {
	var out bytes.Buffer
	if err := JSON(&out, []string{"<a>"}); err != nil || out.String() != "[\n  \"<a>\"\n]\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

func TestNotesOfABarAreLines(t *testing.T) {
	var out strings.Builder
	b := NewBar(&out, "add", 10) // no terminal: no bar
	b.Note(&out, "left out %s", "a")
	b.End()
	if out.String() != "left out a\n" {
		t.Errorf("printed %q", out.String())
	}
}
