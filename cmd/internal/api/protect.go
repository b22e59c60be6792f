package api

import (
	"fmt"
	"strconv"
	"strings"
)

// Protection is how many lost providers content survives: any M of each K+M shards. The zero Protection is none.
type Protection struct{ K, M int }

// ParseProtection reads "k,m".
func ParseProtection(s string) (p Protection, err error) {
	k, m, ok := strings.Cut(s, ",")
	if ok {
		if p.K, err = strconv.Atoi(strings.TrimSpace(k)); err == nil {
			p.M, err = strconv.Atoi(strings.TrimSpace(m))
		}
	}
	if !ok || err != nil || p.K < 1 || p.M < 1 || p.K+p.M > 256 {
		return Protection{}, &Error{Code: CodeUsage, Message: fmt.Sprintf("%q is not k,m with k and m from 1 on and at most 256 together", short(s)),
			Advice: "4,2 makes two parity shards for every four blocks: any two of six may be lost"}
	}
	return p, nil
}

// String is the protection as people write it.
func (p Protection) String() string {
	if p == (Protection{}) {
		return ""
	}
	return fmt.Sprintf("%d,%d", p.K, p.M)
}

// Set and Type make it a flag's value.
func (p *Protection) Set(s string) (err error) {
	*p, err = ParseProtection(s)
	return err
}

// Type names the value in a command's help.
func (p *Protection) Type() string { return "k,m" }

// Verified says which blocks of content are where.
type Verified struct {
	Root     string `json:"root"`
	Manifest string `json:"manifest,omitempty"` // that was gone by; empty: none is known, nothing is recoverable
	K        int    `json:"k,omitempty"`
	M        int    `json:"m,omitempty"`

	Data    Found  `json:"data"`
	Parity  Found  `json:"parity"`
	Bytes   uint64 `json:"bytes"` // of data
	Stripes uint64 `json:"stripes"`

	WeakStripes uint64         `json:"weak_stripes"` // that have lost something, and can be rebuilt
	LostStripes uint64         `json:"lost_stripes"` // that can't
	Problems    []StripeReport `json:"problems,omitempty"`
}

// Found counts blocks by where they were found.
type Found struct {
	Local       uint64 `json:"local"`
	Reachable   uint64 `json:"reachable"`   // at peers
	Recoverable uint64 `json:"recoverable"` // nowhere, and enough of their stripes is
	Lost        uint64 `json:"lost"`
}

// StripeReport is a stripe that has lost something.
type StripeReport struct {
	Stripe      uint64   `json:"stripe"`
	Blocks      int      `json:"blocks"`
	Parity      int      `json:"parity"`
	LostParity  int      `json:"lost_parity"`
	Recoverable int      `json:"recoverable"`
	Lost        []string `json:"lost,omitempty"` // blocks that nothing brings back
}

// Repaired says what a repair has done.
type Repaired struct {
	Root     string `json:"root"`
	Manifest string `json:"manifest"`
	Blocks   uint64 `json:"blocks"`  // of data
	Fetched  uint64 `json:"fetched"` // from peers
	Rebuilt  uint64 `json:"rebuilt"` // from their stripes
	Parity   uint64 `json:"parity"`  // shards made anew
	Lost     uint64 `json:"lost"`
}
