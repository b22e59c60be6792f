//go:build !long && race

package uploader

// killEvery is of how many points one is taken to kill a process at. The race detector makes processes slow: the whole
// matrix runs without it.
var killEvery = 6

// killTwice says whether processes are killed at a point not only the first time that they come to it.
const killTwice = false
