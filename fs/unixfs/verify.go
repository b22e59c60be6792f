package unixfs

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"github.com/ipfs/boxo/verifcid"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// Verify checks that data hashes to c. The error wraps ErrCorrupt if it does not, and ErrUnsupported if c's hash
// function is unknown, not trusted, or its digest too short. It does not look into the data.
func Verify(c cid.Cid, data []byte) error {
	if digest := sha256Digest(c.KeyString()); digest != "" {
		if sum := sha256.Sum256(data); string(sum[:]) != digest {
			return fmt.Errorf("verify %s: %w: %d bytes hash to something else", c, ErrCorrupt, len(data))
		}
		return nil
	}
	if !c.Defined() {
		return fmt.Errorf("verify: %w: no cid", ErrUnsupported)
	}
	if err := verifcid.ValidateCid(verifcid.DefaultAllowlist, c); err != nil {
		return fmt.Errorf("verify %s: %w: %w", c, ErrUnsupported, err)
	}
	p := c.Prefix()
	length := p.MhLength
	if p.MhType == mh.IDENTITY {
		length = -1
	}
	sum, err := mh.Sum(data, p.MhType, length)
	if err != nil {
		return fmt.Errorf("verify %s: %w: %w", c, ErrUnsupported, err)
	}
	if !bytes.Equal(sum, c.Hash()) {
		return fmt.Errorf("verify %s: %w: %d bytes hash to something else", c, ErrCorrupt, len(data))
	}
	return nil
}

// sha256Digest returns the digest in the bytes of a CID of the usual kinds, whole sha2-256, or "".
func sha256Digest(key string) string {
	switch {
	case len(key) == 34 && key[0] == mh.SHA2_256 && key[1] == 32:
		return key[2:]
	case len(key) == 36 && key[0] == 1 && key[1] < 0x80 && key[2] == mh.SHA2_256 && key[3] == 32:
		return key[4:]
	}
	return ""
}
