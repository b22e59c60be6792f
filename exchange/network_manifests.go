package exchange

import (
	"context"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
)

const (
	// manifestPeers is how many peers are asked for the manifests of a dataset.
	manifestPeers = 25
	// manifestPatience is how long their answers are waited for.
	manifestPatience = time.Second
	// maxManifestsTold is how many different manifests are taken from all answers together.
	maxManifestsTold = 16
)

// manifestAsk is one question. Answers of peers that were not asked are not for it.
type manifestAsk struct {
	waiting map[*remote]struct{} // under the network's lock
	answers chan []cid.Cid       // has room for one of each peer
}

// Manifests asks connected peers which manifests they know for a dataset. They are taken on trust of nobody: whoever
// uses one checks it. It waits a second at most.
func (n *HostNetwork) Manifests(ctx context.Context, root cid.Cid) ([]cid.Cid, error) {
	ask := n.askManifests(root)
	defer n.endAsk(root, ask)
	ctx, cancel := context.WithTimeout(ctx, manifestPatience)
	defer cancel()
	var out []cid.Cid
	for range cap(ask.answers) {
		select {
		case list := <-ask.answers:
			for _, c := range list {
				if len(out) < maxManifestsTold && !slices.Contains(out, c) {
					out = append(out, c)
				}
			}
		case <-ctx.Done():
			return out, nil
		}
	}
	return out, nil
}

// Newcomers counts the peers that could be asked by [HostNetwork.Manifests] since the network was made.
func (n *HostNetwork) Newcomers() uint64 { return n.newcomers.Load() }

func (n *HostNetwork) askManifests(root cid.Cid) *manifestAsk {
	n.mu.Lock()
	defer n.mu.Unlock()
	ask := &manifestAsk{waiting: make(map[*remote]struct{})}
	for _, r := range n.peers {
		if len(ask.waiting) < manifestPeers && r.pays.Load() && r.wants.ask(root) {
			ask.waiting[r] = struct{}{}
			r.startLocked(&r.wantsOn, r.sendWants)
		}
	}
	ask.answers = make(chan []cid.Cid, len(ask.waiting))
	n.asks[root] = append(n.asks[root], ask)
	return ask
}

func (n *HostNetwork) endAsk(root cid.Cid, ask *manifestAsk) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asks[root] = slices.DeleteFunc(n.asks[root], func(a *manifestAsk) bool { return a == ask })
	if len(n.asks[root]) == 0 {
		delete(n.asks, root)
	}
}

// told takes a peer's answer, if it was asked.
func (n *HostNetwork) told(r *remote, k known) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, ask := range n.asks[k.root] {
		if _, asked := ask.waiting[r]; asked {
			delete(ask.waiting, r)
			ask.answers <- k.manifests
		}
	}
}
