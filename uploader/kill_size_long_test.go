//go:build long

package uploader

// killEvery is of how many points one is taken to kill a process at.
var killEvery = 1

// killTwice says whether processes are killed at a point not only the first time that they come to it.
const killTwice = true
