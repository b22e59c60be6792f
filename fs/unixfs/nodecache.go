package unixfs

import (
	"container/list"
	"sync"
)

// nodeCache keeps decoded inner nodes, the most recently used within a bound of bytes. Keys are the bytes of CIDs.
type nodeCache struct {
	max int64

	mu           sync.Mutex // guards all below
	used         int64
	byKey        map[string]*list.Element
	order        list.List // of *cachedNode, most recently used first
	hits, misses uint64
}

type cachedNode struct {
	key  string
	node *dagNode
	cost int64
}

func newNodeCache(max int64) *nodeCache {
	return &nodeCache{max: max, byKey: make(map[string]*list.Element)}
}

// get returns the node under key, a CID's bytes, or nil.
func get[K string | []byte](c *nodeCache, key K) *dagNode {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[string(key)] // does not allocate
	if !ok {
		c.misses++
		return nil
	}
	c.hits++
	c.order.MoveToFront(e)
	return e.Value.(*cachedNode).node
}

// put keeps n, which must own its bytes, and forgets what was used longest ago.
func (c *nodeCache) put(key string, n *dagNode) {
	cost := n.cost() + int64(len(key))
	if cost > c.max {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byKey[key]; ok {
		return // equal keys have equal nodes
	}
	c.byKey[key] = c.order.PushFront(&cachedNode{key: key, node: n, cost: cost})
	c.used += cost
	for c.used > c.max {
		last := c.order.Back()
		old := c.order.Remove(last).(*cachedNode)
		delete(c.byKey, old.key)
		c.used -= old.cost
	}
}

func (c *nodeCache) stats() (used int64, hits, misses uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used, c.hits, c.misses
}
