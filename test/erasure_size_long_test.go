//go:build long

package test

// What is protected in a run that may take an hour.
const erasureBytes = 1 << 30

// realParts are the parts of Go's source that are protected; none is all of it.
var realParts []string
