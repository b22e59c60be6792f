// Package fs shows content-addressed data as an ordinary directory: a read-only FUSE mount of a CID, or of all CIDs,
// and a writable one whose files are uploaded once they are closed. Call [Mount] or [MountUpload], then [Mounted.Wait];
// end it with [Mounted.Unmount].
//
// Its nouns: [Blocks] is where a mount reads from; a [Mounted] is a mount that this process serves; a [BlockError] tells
// which block a read wanted and did not get. Inside, the tree answers the kernel's requests; a node is what the kernel
// knows of a path; a call is one request while it may wait; a handle is one open. What UnixFS means is fs/unixfs's to
// know.
//
// What it looks like. A directory's CID on DIR is that directory. A file's or symbolic link's CID on a directory shows
// as DIR/<CID>; a file's on a regular file is that file. A mount without a root has every CID as a name below DIR, any
// spelling of it; its own listing is empty, as nobody can list them all. Modes and times come from the DAG. What carries
// none gets 0555 (directories), 0444 (files; Config.FileMode changes it, as without a mode nobody knows what can be
// executed) and one second after the epoch, the same in every mount. Everything belongs to who mounted. Directories have
// one link, which tells find that the count says nothing. The attribute user.holdfast.cid tells a path's CID.
//
// What it promises. Every request is answered within Config.Timeout, with data or an errno; a missing block is EIO for
// that read, is told to the log once, and harms nothing else. A read gives all its bytes or fails: never zeros, never
// an end too early. A signal that ends the reader, or asks it to end, ends its wait at once; others do not, as few
// programs expect EINTR from a file and Go programs get SIGURG all the time. Reads of pages the kernel is reading ahead
// are its own to interrupt, and it does for signals that kill. Content does not change, so the kernel keeps names,
// attributes, listings and bytes for good: what was seen is seen without this process. Inode numbers are hashes of root
// and path, the same in every mount of the root.
//
// How it is quick. A complete file of 4 MiB or more is handed to the kernel (passthrough), where kernel and rights
// allow; the log says once whether they do. An inode is passthrough or cached from its first open to its last release,
// as the kernel allows no mixture. Other reads are fetched ahead: bytes when two reads follow each other, in whatever
// order the kernel sends them; files when a program opens two of a directory in the order it lists, names or numbers
// them. Listings take attributes from local blocks alone and have the others fetched ahead.
//
// What survives a crash: nothing is kept here. A mount whose process died answers ENOTCONN; the next Mount at its
// place removes it. When the kernel aborts a mount, or somebody else unmounts it, all its goroutines end and Wait
// returns.
//
// # The upload directory
//
// An [Upload] is a writable POSIX tree over a staging directory that mirrors it name for name: names, metadata and
// crash safety are the local file system's. Its nouns: a staged inode is what the kernel knows of one; a [FileID] names
// a file over renames, hard links and restarts and lies in an attribute of the staged inode; a [Version] is what stat
// says of one content; [Uploads] is told what is complete and asked what became of it; a [Lease] is a hold on a version
// while it is read; a stub is what is left of a file whose bytes were evicted.
//
// Every name is resolved from a descriptor of its directory, never following a link, and the inode found is compared
// with the one the kernel was told of: nothing leads out of staging, whoever changes it meanwhile. What is changed
// through the mount is seen by everybody at once, by writes to shared mappings too. What somebody changes in staging
// behind it is seen by the next open, in names and attributes within a second.
//
// Open files go through to staging (passthrough) where kernel and rights allow, so their bytes never come here. That
// also means that nobody sees the last write: a file counts as complete when its last writable descriptor is closed
// and the staged file takes a read lease, which it refuses while a writable mapping lives. Then [Versions.Closed] is
// called, once a version, however often the file was flushed. Files made under temporary names wait for their rename, for
// UploadConfig.TempWait at most. Files without a name are never told of.
//
// fsync of a file or directory makes it durable in staging, and is the only barrier: syncfs does not reach us, as the
// kernel asks nobody but virtiofs and fuseblk for it. What was closed, and is lost to [Uploads] by a power cut, is found and
// told again at the next start.
//
// Staged bytes are counted by the blocks that they take. Writes that come here wait where the
// quota ends for files to be evicted (UploadConfig.MakeRoom), and fail with ENOSPC where none can be.
// Near the quota no writer gets passthrough any more; one that got it before goes on unhindered, is measured ten times a
// second, and keeps all others from growing.
//
// Whoever reads staged bytes where they lie, without a lease, is told before they change or go: [Versions.Opened] comes
// before the first writer's open, truncation or O_TRUNC is answered, and so before any write, fallocate, copy or mapping,
// and [Versions.Leaving] before a file's last name goes, by unlink or by a rename over it, and before it is evicted. Both
// may take long, to copy what is needed. A request that cannot wait for it any more fails with EIO and has changed
// nothing; the copy goes on, and a later open finds it made. A file that nobody has open may be kept, inode and all,
// by a name outside the tree when its last one goes; who found it before that and opens it for writing gets ESTALE.
//
// [Upload.Evict] replaces staged bytes by a stub when nobody has them open: same inode, size and times, bytes read
// from Blocks. Opening a stub for writing brings its bytes back first, all of them, or none where it is truncated.
//
// fsync is the barrier to rely on. After a crash the tree is what staging is; at the next start every file whose
// size, modification or change time differs from its record counts as closed, so that lost reports do no harm. Reports
// to Uploads come in the order of the changes they tell of, while the kernel waits: they must be quick, and must not
// call back.
//
// All methods may be called from any goroutine. The serving process must not use the mount itself.
package fs
