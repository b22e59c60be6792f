package uploader

import (
	"fmt"
	"testing"
)

// uploadAll has a machine place files, with providers that answer at once.
func uploadAll(b *testing.B, files []checked) {
	w := newWorld(b, 1, 8)
	for _, f := range files {
		w.m.Step(fileEvent{f})
	}
	r := w.m.Ready()
	for tasks := r.tasks; len(tasks) > 0; tasks = r.tasks {
		for _, t := range tasks {
			w.m.Step(w.do(t))
		}
		r = w.m.Ready()
	}
	for _, f := range files {
		w.wantState(f, Uploaded)
	}
}

// BenchmarkSmallFiles uploads 10,000 files that share four groups.
func BenchmarkSmallFiles(b *testing.B) {
	for b.Loop() {
		var files []checked
		for i := range 10_000 {
			files = append(files, testFile(fmt.Sprint(i), Policy{}, columns(fmt.Sprint("g", i/2500), 6)))
		}
		uploadAll(b, files)
	}
}

// BenchmarkManyGroups uploads 1,000 files with a group each, 6,000 chunks.
func BenchmarkManyGroups(b *testing.B) {
	for b.Loop() {
		var files []checked
		for i := range 1_000 {
			files = append(files, testFile(fmt.Sprint(i), Policy{}, columns(fmt.Sprint("g", i), 6)))
		}
		uploadAll(b, files)
	}
}
