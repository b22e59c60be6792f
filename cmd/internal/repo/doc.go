// Package repo is a node's directory: its identity, settings, database and the files of the block
// store. [Open] takes the directory for this process, making it first where there is none yet, and
// [Repo.Close] gives it back.
//
// # Layout
//
//	version       format of the directory, a number
//	config.yaml   settings, with a comment each
//	identity.key  the ed25519 key that is the node's peer ID (mode 0600)
//	lock          held with flock by the process that owns the repo; holds its pid
//	running       there while a process works on the repo: found at start, the last stop was unclean
//	api.sock      the control socket of the owner (mode 0600)
//	db            badger: block index, journals, provider records, known peers, mounts
//	blocks        packs and bodies
//	log           what detached mounts had to say
//
// Everything in db lies under a prefix; the table is in prefixes.go.
//
// # Promises
//
// One process owns a repo: a second gets [ErrInUse] with the owner's pid. A repo of a newer format is
// refused, not touched. Init may be interrupted at any moment: the version file is written last, and a
// later init goes on. What [Repo.SavePeer] and [Repo.SaveMount] returned from survives a power cut.
// A Repo's methods may be called from any goroutine.
package repo
