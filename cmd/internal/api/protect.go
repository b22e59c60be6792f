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
