//go:build !long

package test

// What is protected in a run that should take minutes.
const erasureBytes = 96 << 20

// realParts are the parts of Go's source that are protected; none is all of it.
var realParts = []string{"net", "cmd/go"}
