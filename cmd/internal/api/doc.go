// Package api is how commands talk to the process that owns the repo: HTTP and JSON over a unix socket.
// [NewServer] puts a [Node] behind it, [Dial] returns the [Client] that every command uses.
//
// # Nouns
//
// A [Ref] is what people write: a CID, perhaps with a path below it. An [Entry] describes a file, directory
// or symbolic link. Trees travel as PAX tar both ways: [Pack] makes one of files that the command can
// read, [Unpack] makes files of one, inside a directory that it can't be led out of.
//
// # Promises
//
// The socket has mode 0600. An error that a node answers with arrives as an [Error] with the same
// code, text and hint. A stream that ends early is an error at the client, never a short result: the
// server ends it with a trailer, and a missing trailer counts as a broken connection. The request's
// context ends the work behind it when the client goes away.
package api
