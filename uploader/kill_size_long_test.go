//go:build long

package uploader

// killTwice says whether processes are killed at a point not only the first time that they come to it.
const killTwice = true
