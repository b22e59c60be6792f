//go:build !long

package provider

// randomLives is how many random lives are lived.
const randomLives = 8
