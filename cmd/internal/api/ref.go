package api

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multicodec"
	"github.com/multiformats/go-multihash"
)

// Ref names content: a CID and perhaps a path below it.
type Ref struct {
	CID  cid.Cid
	Path string // without slashes at its ends; empty: the CID itself
}

// Read is a request for content.
type Read struct {
	Ref
	Timeout time.Duration // within which a block must come; zero: the node's
	Spending
}

// Spending is what a command lets the node pay for content, in the ledger's smallest unit. Nil is what the node's
// settings say.
type Spending struct {
	MaxPrice *uint64 `json:"max_price,omitempty"` // for a MiB
	Budget   *uint64 `json:"budget,omitempty"`    // in all
}

// hashes are the hash functions blocks are verified with.
var hashes = []uint64{multihash.IDENTITY, multihash.SHA2_256, multihash.SHA2_512, multihash.BLAKE3,
	multihash.BLAKE2B_MIN + 31, multihash.BLAKE2B_MAX, multihash.SHA3_256, multihash.SHA3_512, multihash.DBL_SHA2_256}

// codecs are the block formats whose links can be followed.
var codecs = []multicodec.Code{multicodec.Raw, multicodec.DagPb, multicodec.DagCbor, multicodec.DagJson, multicodec.Cbor, multicodec.Json}

// ParseRef reads "CID", "CID/path", "/ipfs/CID/path" and "ipfs://CID/path". What is not a CID is
// [CodeUsage]; a CID of a codec or hash that nothing here can read is [CodeUnsupported].
func ParseRef(s string) (Ref, error) {
	rest := strings.TrimPrefix(strings.TrimPrefix(s, "ipfs://"), "/ipfs/")
	name, path, _ := strings.Cut(rest, "/")
	c, err := cid.Decode(name)
	if err != nil {
		return Ref{}, &Error{Code: CodeUsage, Message: fmt.Sprintf("%q is not a CID: %v", short(name), plainCause(err)),
			Advice: "a CID looks like bafybei… or Qm…; holdfast add prints the one of a file"}
	}
	if err := checkSupported(c); err != nil {
		return Ref{}, err
	}
	path = strings.Trim(path, "/")
	if path != "" && slices.ContainsFunc(strings.Split(path, "/"), isDots) {
		return Ref{}, &Error{Code: CodeUsage, Message: fmt.Sprintf("path %q holds an empty name, \".\" or \"..\"", short(path))}
	}
	return Ref{CID: c, Path: path}, nil
}

// ParseCID is ParseRef for where no path may follow.
func ParseCID(s string) (cid.Cid, error) {
	ref, err := ParseRef(s)
	if err != nil {
		return cid.Undef, err
	}
	if ref.Path != "" {
		return cid.Undef, &Error{Code: CodeUsage, Message: fmt.Sprintf("%q: a CID alone is wanted, without a path", short(s)),
			Advice: "holdfast stat CID/path prints the CID of what lies there"}
	}
	return ref.CID, nil
}

// String is the ref as people write it.
func (r Ref) String() string {
	if r.Path == "" {
		return r.CID.String()
	}
	return r.CID.String() + "/" + r.Path
}

func isDots(name string) bool { return name == "" || name == "." || name == ".." }

func checkSupported(c cid.Cid) error {
	p := c.Prefix()
	if !slices.Contains(codecs, multicodec.Code(p.Codec)) {
		return &Error{Code: CodeUnsupported, Message: fmt.Sprintf("%s: codec %s is not supported", c, multicodec.Code(p.Codec)),
			Advice: "files and directories have the codecs dag-pb and raw"}
	}
	if !slices.Contains(hashes, p.MhType) {
		return &Error{Code: CodeUnsupported, Message: fmt.Sprintf("%s: hash %s is not supported", c, multicodec.Code(p.MhType)),
			Advice: "blocks are verified with sha2-256, blake3 or blake2b"}
	}
	return nil
}

// short keeps foreign text to what fits a line.
func short(s string) string {
	if len(s) > 200 {
		s = s[:197] + "..."
	}
	return s
}

// plainCause is the last part of an error's text, which says what is wrong.
func plainCause(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return text
}
