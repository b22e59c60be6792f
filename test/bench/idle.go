package main

import (
	"fmt"
	"time"

	"github.com/holdfastfs/holdfast/test/swarm"
)

const (
	idlePeers = 25
	idleTime  = 10 * time.Second
)

// idleRow is what a node costs that has peers and nothing to do.
func idleRow() row {
	var node *swarm.Node
	var peers []*swarm.Node
	return row{
		name: fmt.Sprintf("idle: processor of a node with %d peers", idlePeers),
		unit: unitCPU,
		goal: goal{withinCPU, 1},
		prepare: func(b *bench) {
			node = b.empty()
			addrs := []string{"connect"}
			for i := range idlePeers {
				p := b.swarm.Start(fmt.Sprintf("idle%d", i))
				peers = append(peers, p)
				addrs = append(addrs, p.Identity().Addresses[0])
			}
			node.Must(addrs...)
			b.swarm.Eventually("the peers are connected", func() bool { return node.Figure("peers") >= idlePeers })
		},
		ours: func(b *bench) sample {
			before, err := cpuTime(node.Pid())
			b.must(err, "idle")
			start := time.Now()
			select {
			case <-time.After(idleTime):
			case <-b.ctx.Done():
				b.Fatalf("%w", b.ctx.Err())
			}
			after, err := cpuTime(node.Pid())
			b.must(err, "idle")
			return sample{work: (after - before).Seconds(), took: time.Since(start)}
		},
		note: func(b *bench) string {
			n := node.Figure("peers")
			for _, p := range peers {
				p.Stop()
			}
			b.discard(node)
			return fmt.Sprintf("%d connected", n)
		},
	}
}
