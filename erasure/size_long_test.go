//go:build long

package erasure

import "testing"

// Of large files, and of ten million small ones.
func TestManifestOf1TiB(t *testing.T)        { huge(t, 4, 2, 1<<40, 1<<20) }
func TestManifestOf10MBlocks(t *testing.T)   { huge(t, 10, 4, 10_000_000*10<<10, 10<<10) }
func TestManifestOfWideStripes(t *testing.T) { huge(t, 64, 32, 1<<40, 1<<20) }
