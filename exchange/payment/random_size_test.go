//go:build !long

package payment

// randomLives is how many random lives are lived.
const randomLives = 4
