package swarm

import (
	"encoding/json"
	"os"
)

// Peer is a line of `holdfast peers --json`. Amounts are in the ledger's smallest unit.
type Peer struct {
	ID            string  `json:"id"`
	Connected     bool    `json:"connected"`
	BannedSeconds float64 `json:"banned_seconds"`
	BannedFor     string  `json:"banned_for"`
	Paid          uint64  `json:"paid"`
	Earned        uint64  `json:"earned"`
	BytesIn       uint64  `json:"bytes_in"`
}

// Channel is a line of `holdfast channels --json`.
type Channel struct {
	ID        string `json:"id"`
	Peer      string `json:"peer"`
	Direction string `json:"direction"`
	State     string `json:"state"`
	Deposit   uint64 `json:"deposit"`
	Amount    uint64 `json:"amount"`
	Settled   uint64 `json:"settled"`
}

// Limit is a line of the limits in `holdfast status --json`.
type Limit struct {
	Name  string `json:"name"`
	Used  int64  `json:"used"`
	Limit int64  `json:"limit"`
}

// Peers asks the running node for its peers, by ID.
func (n *Node) Peers() map[string]Peer {
	n.s.TB.Helper()
	var list []Peer
	n.report(&list, "peers", "--json")
	all := make(map[string]Peer)
	for _, p := range list {
		all[p.ID] = p
	}
	return all
}

// Channels asks the running node for its payment channels, by ID.
func (n *Node) Channels() map[string]Channel {
	n.s.TB.Helper()
	var list []Channel
	n.report(&list, "channels", "--json")
	all := make(map[string]Channel)
	for _, c := range list {
		all[c.ID] = c
	}
	return all
}

// Limits asks the running node how much of each of its limits is in use.
func (n *Node) Limits() []Limit {
	n.s.TB.Helper()
	var st struct {
		Limits []Limit `json:"limits"`
	}
	n.report(&st, "status", "--json")
	return st.Limits
}

// AwaitMounted waits until the running node serves a mount at dir, which it restores after its start. To look at dir says
// nothing: what a node that was killed has left there answers, too, from what the kernel remembers.
func (n *Node) AwaitMounted(dir string) {
	n.s.TB.Helper()
	n.s.Eventually(dir+" is mounted by "+n.Name, func() bool {
		var list []struct{ Dir, State string }
		n.report(&list, "mounts", "--json")
		for _, m := range list {
			if m.Dir == dir && m.State == "mounted" {
				return true
			}
		}
		return false
	})
}

func (n *Node) report(to any, args ...string) {
	n.s.TB.Helper()
	out := n.Must(args...)
	if err := json.Unmarshal([]byte(out), to); err != nil {
		n.s.TB.Fatalf("%s: %v: %v: %s", n.Name, args, err, out)
	}
}

// Balances reads what each peer has in the ledger that the swarm's nodes share, and what its open
// channels hold: all of it together is nothing, as money is neither made nor lost.
func (s *Swarm) Balances() (of map[string]int64, held int64) {
	s.TB.Helper()
	b, err := os.ReadFile(s.Path("ledger.json"))
	if err != nil {
		s.TB.Fatalf("the ledger: %v", err)
	}
	var book struct {
		Accounts []struct {
			Peer    string `json:"peer"`
			Balance int64  `json:"balance"`
		} `json:"accounts"`
		Channels []struct {
			Deposit uint64 `json:"deposit"`
			Settled uint64 `json:"settled"`
			State   string `json:"state"`
		} `json:"channels"`
	}
	if err := json.Unmarshal(b, &book); err != nil {
		s.TB.Fatalf("the ledger: %v: %s", err, b)
	}
	of = make(map[string]int64)
	for _, a := range book.Accounts {
		of[a.Peer] += a.Balance
	}
	for _, c := range book.Channels {
		if c.State != "closed" {
			held += int64(c.Deposit - c.Settled)
		}
	}
	return of, held
}
