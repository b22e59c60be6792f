package uploader

import "testing"

func TestPlaceOneGroup(t *testing.T) {
	w := newWorld(t, 1, 6)
	f := testFile("f", Policy{}, columns("g", 6))
	w.step(fileEvent{f})
	if s := w.wantState(f, Uploading); s.String() != "uploading: needs 6 providers, 0 known" {
		t.Fatalf("file is %s", s)
	}
	w.settle()
	w.wantState(f, Uploaded)
	w.checkKept()
	w.step(removeEvent{f.ID})
	w.settle()
	w.checkKept()
	if len(w.m.chunks)+len(w.m.groups)+len(w.m.links)+len(w.m.files) > 0 || len(w.journal.records) > 0 {
		t.Fatalf("%d records are left", len(w.journal.records))
	}
}

func TestPlacePriced(t *testing.T) {
	w := newWorld(t, 1, 4)
	for _, f := range w.fakes {
		f.price = 1 << 30
	}
	f := testFile("f", Policy{}, columns("g", 3))
	w.step(fileEvent{f})
	w.settle()
	w.wantState(f, Uploaded)
	w.checkKept()
	if len(w.purse) != 3 {
		t.Fatalf("%d links are paid, want 3", len(w.purse))
	}
}
