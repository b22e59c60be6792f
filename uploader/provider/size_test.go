//go:build !long && !race

package provider

// randomLives is how many random lives are lived.
const randomLives = 6

// crashStride is how many steps lie between ends of a life, for each of the two ways of ending.
const crashStride = 2
