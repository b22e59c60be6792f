package api

import (
	"context"
	"io"
	"iter"

	"github.com/ipfs/go-cid"
)

// Node is what a server stands before. Every method may be called at any time by many; each ends soon
// after its ctx. Errors that are an [Error] travel as they are, others as [CodeFailed].
type Node interface {
	Network
	Content
	Importer
	Mounter
	Keeper
	Payer
	Writer
}

// Writer has content kept by storage providers.
type Writer interface {
	// Sync waits until all that is in the upload directory at dir is with providers. progress may be nil, and is called
	// now and then, by one goroutine.
	Sync(ctx context.Context, dir string, progress func(SyncProgress)) (Synced, error)
	// Pending tells what of the upload directory at dir is not. Of other directories nothing is.
	Pending(ctx context.Context, dir string) (Pending, error)
	// Uploads lists upload directories and what was added to be uploaded; with groups, the files that the uploader has
	// of each.
	Uploads(ctx context.Context, groups bool) ([]Upload, error)
	// UploadFiles yields the files in an upload directory as they are come upon.
	UploadFiles(ctx context.Context, of UploadFilesRequest) iter.Seq2[UploadFile, error]
	// RetryUpload takes uploads up at once, also cancelled ones; CancelUpload ends them until they are retried.
	RetryUpload(ctx context.Context, of UploadRef) (UploadsChanged, error)
	CancelUpload(ctx context.Context, of UploadRef) (UploadsChanged, error)
	// RepairUploads audits what providers have signed for, and has what is lost placed anew and what ends soon renewed.
	RepairUploads(ctx context.Context, of UploadRef) (RepairedLinks, error)
	Links(ctx context.Context) ([]Link, error)
	Providers(ctx context.Context) ([]Provider, error)
}

// Payer pays peers and is paid by them.
type Payer interface {
	// Channels lists payment channels, closed ones for a while too.
	Channels(ctx context.Context) ([]Channel, error)
	// CloseChannels closes those with a peer, and lists all.
	CloseChannels(ctx context.Context, peer string) ([]Channel, error)
}

// Network is the node among its peers.
type Network interface {
	ID(ctx context.Context) (ID, error)
	Status(ctx context.Context) (Status, error)
	// Connect dials each address, a multiaddr with /p2p/, and remembers the peers, also those that
	// do not answer now; it returns those that do.
	Connect(ctx context.Context, addrs []string) ([]Peer, error)
	// Forget ends the remembering of a peer.
	Forget(ctx context.Context, id string) error
	Peers(ctx context.Context) ([]Peer, error)
}

// Content is what can be read.
type Content interface {
	Stat(ctx context.Context, r Read) (Entry, error)
	// List yields the entries of a directory, or the file itself. detail asks for what only the
	// entries' own blocks know.
	List(ctx context.Context, r Read, detail bool) iter.Seq2[Entry, error]
	// Open opens a file.
	Open(ctx context.Context, r Read) (File, error)
	// Export opens a file or tree as a tar stream.
	Export(ctx context.Context, r Read) (Export, error)
}

// File is an open file. It is used by one goroutine at a time.
type File interface {
	Entry() Entry
	// Reader reads from off to the end, ahead of its reader. The caller closes it.
	Reader(ctx context.Context, off uint64) (io.ReadCloser, error)
}

// Export is a tree about to be written as tar.
type Export interface {
	Entry() Entry
	// WriteTar writes the whole archive. The top entry has the name "."; an error leaves it torn.
	WriteTar(ctx context.Context, w io.Writer) error
}

// Importer makes DAGs.
type Importer interface {
	// Add reads a tar stream as [Pack] makes it and returns a root for every top-level name, in order.
	// What it returns is durable, and kept until unpinned if opts say so.
	Add(ctx context.Context, tar io.Reader, opts AddOptions) ([]Added, error)
}

// Mounter serves file systems.
type Mounter interface {
	// Mount returns when the mount answers.
	Mount(ctx context.Context, req MountRequest) (Mount, error)
	// Unmount ends the mount at dir and forgets it, force also if programs use it. A dead node's mount is
	// ended too.
	Unmount(ctx context.Context, dir string, force bool) error
	Mounts(ctx context.Context) ([]Mount, error)
	// WaitUnmounted returns when dir is not mounted, for whatever reason.
	WaitUnmounted(ctx context.Context, dir string) error
}

// Keeper decides what stays.
type Keeper interface {
	// Pin fetches the whole DAG of c and keeps it. progress is called now and then, by one goroutine.
	Pin(ctx context.Context, r Read, progress func(Progress)) (Pin, error)
	Unpin(ctx context.Context, c cid.Cid) error
	// Verify finds out where the blocks of content are; deep reads and fetches them all. progress may be nil, and is
	// called by one goroutine at a time.
	Verify(ctx context.Context, r Read, deep bool, progress func(Progress)) (Verified, error)
	// Repair brings all blocks of protected content here and makes lost parity anew.
	Repair(ctx context.Context, r Read, progress func(Progress)) (Repaired, error)
	Pins(ctx context.Context) ([]Pin, error)
	GC(ctx context.Context) (GCResult, error)
}
