// Package node joins the rooms to one node: host, routing, exchange, block store and cache, mounts, and
// the control socket before them. Make one with [Open] and let [Node.Run] work until its context ends.
//
// What each room asks of another is in adapters.go; what runs, and in which order it stops, is in run.go;
// what commands ask is in the files named after it. Errors leave the package as [api.Error].
//
// Stopping runs backwards: mounts are taken down, commands end, then the exchange, the cache, the store,
// routing and host, and at last the repo. What was acknowledged to a command survives kill -9 at any moment.
package node
