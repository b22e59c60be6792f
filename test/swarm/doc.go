// Package swarm runs real holdfast processes on loopback for tests and
// benchmarks: [New] makes a swarm, [Swarm.Start] a running node.
//
// Every node is a child process with a repository of its own below the swarm's
// directory. Whatever happens to the test, the swarm's cleanup unmounts what
// its nodes mounted (aborting connections that hang), kills its children by
// pid and removes its directory.
package swarm
