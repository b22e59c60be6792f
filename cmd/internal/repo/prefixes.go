package repo

// Prefixes of the one database. Each belongs to one room; nothing else reads or writes below it. A
// change here, or of what lies below a prefix, is a change of [FormatVersion].
var (
	PrefixBlocks         = []byte("b/") // blockcache: index of blocks, bodies, pins
	PrefixRouting        = []byte("d/") // exchange: the DHT's provider records
	PrefixAnnounce       = []byte("a/") // exchange: the queue of announcements
	PrefixSweep          = []byte("s/") // exchange: how far the announcements of all blocks are
	PrefixPayment        = []byte("v/") // exchange/payment: channels, vouchers, spending
	PrefixManifest       = []byte("x/") // exchange/recovery: which manifests protect which roots
	PrefixProvider       = []byte("o/") // uploader/provider: sealed chunks kept for others
	PrefixUploads        = []byte("u/") // uploader: files, chunks, links
	PrefixStoragePayment = []byte("w/") // exchange/payment: the same for storage
	PrefixDatasets       = []byte("e/") // uploader/dataset: upload directories, by name
	PrefixUploadParts    = []byte("f/") // node: upload directories: parts of their manifests, cancelled files
	PrefixUnfinished     = []byte("q/") // repo: upload directories that a daemon goes on with when they are not mounted
	PrefixPeers          = []byte("p/") // repo: peers to stay connected to
	PrefixMounts         = []byte("m/") // repo: mounts that a daemon restores
)
