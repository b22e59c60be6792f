//go:build long

package provider

// randomLives is how many random lives are lived.
const randomLives = 300

// crashStride is how many steps lie between ends of a life, for each of the two ways of ending.
const crashStride = 1
