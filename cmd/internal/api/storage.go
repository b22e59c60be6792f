package api

import "time"

// Upload is content that providers are to keep.
type Upload struct {
	ID     string     `json:"id,omitempty"` // of a group, or of what was added
	Name   string     `json:"name"`
	State  string     `json:"state"` // created, uploading, uploaded or failed
	Text   string     `json:"text"`  // the state for people, with what is missing
	Reason string     `json:"reason,omitempty"`
	Bytes  int64      `json:"bytes"` // all copies together, parity too
	Done   int64      `json:"done"`  // of these, signed for
	Expiry *time.Time `json:"expires,omitempty"`

	Directory *UploadDirectory `json:"directory,omitempty"` // set for an upload directory, with all its groups
}

// UploadDirectory is what an upload directory is beside what it uploads.
type UploadDirectory struct {
	Dir   string `json:"dir,omitempty"` // where it is mounted; empty: it is not
	Files uint64 `json:"files"`
	More  bool   `json:"more,omitempty"` // there are more files: counting took too long
}

// UploadFilesRequest names files in an upload directory.
type UploadFilesRequest struct {
	Dir  string `json:"dir"`            // where it is mounted, absolute; or its name, as Name
	Name string `json:"name,omitempty"` // counts where nothing is mounted on Dir
	Path string `json:"path,omitempty"` // in it
	All  bool   `json:"all,omitempty"`  // also those that are uploaded
}

// UploadFile is a file in an upload directory.
type UploadFile struct {
	Path     string `json:"path"` // in the directory
	Bytes    int64  `json:"bytes"`
	State    string `json:"state"` // created, uploading, uploaded or failed
	Progress string `json:"progress,omitempty"`
	Reason   string `json:"reason,omitempty"` // why it waits, or has failed
	CID      string `json:"cid,omitempty"`
}

// SyncProgress is how far the upload of a directory is.
type SyncProgress struct {
	Left   int64  `json:"left"`             // bytes that are to go to providers, all copies together; partly an estimate
	Reason string `json:"reason,omitempty"` // what it waits for, where that is known
}

// Link is one chunk at one provider.
type Link struct {
	ID       string    `json:"id"`
	Chunk    string    `json:"chunk"`
	Provider string    `json:"provider"`
	State    string    `json:"state"`
	Bytes    int64     `json:"bytes"`
	Price    uint64    `json:"price"` // for all of the time, in the ledger's smallest unit
	Paid     bool      `json:"paid"`
	Expiry   time.Time `json:"expires"`
	Reason   string    `json:"reason,omitempty"` // of failed
}

// Provider is a node that keeps chunks for others.
type Provider struct {
	ID        string `json:"id"`
	Known     bool   `json:"known"` // it has told its terms
	FreeBytes uint64 `json:"free_bytes"`
	Price     uint64 `json:"price"` // for a GiB and day
	Region    string `json:"region,omitempty"`
	Fits      bool   `json:"fits"`

	Networks []string `json:"networks,omitempty"` // that it lies in: /24, or /56 for IPv6; private addresses have none
	Trouble  string   `json:"trouble,omitempty"`  // why it is not used
	Links    int      `json:"links"`              // signed
	Bytes    int64    `json:"bytes"`              // of those
}

// UploadRequest is how an upload directory is to be kept. Zero fields mean the node's defaults.
type UploadRequest struct {
	Name         string        `json:"name"` // of its staging tree
	Protect      Protection    `json:"protect"`
	Redundancy   int           `json:"redundancy,omitempty"` // providers a chunk
	Lifetime     time.Duration `json:"lifetime,omitempty"`   // at providers
	AutoRenew    bool          `json:"auto_renew,omitempty"`
	StagingQuota int64         `json:"staging_quota,omitempty"` // in bytes
	TempNames    []string      `json:"temporary_names"`         // that wait for their rename; nil: the node's
}

// Synced is the state of an upload directory that providers have signed for.
type Synced struct {
	Root     string     `json:"root"`
	Manifest string     `json:"manifest"`
	Expires  *time.Time `json:"expires,omitempty"` // the first link of it that does
}

// UploadRef names uploads: a path in an upload directory, with all below it, or what was added to be uploaded.
type UploadRef struct {
	Dir  string `json:"dir,omitempty"`  // where an upload directory is mounted, absolute; empty: Name counts
	Path string `json:"path,omitempty"` // in it
	Name string `json:"name,omitempty"` // an upload's ID, its manifest's or root's CID, or its name
}

// UploadsChanged is what became of uploads that were to be retried or cancelled.
type UploadsChanged struct {
	Changed int `json:"changed"`
	Left    int `json:"left"` // alone: files for which there was nothing to do
}

// Pending is what of an upload directory is not with providers.
type Pending struct {
	Upload bool   `json:"upload"`         // it is one; otherwise nothing is pending
	Files  uint64 `json:"files"`          // with content that providers have not signed for
	Bytes  uint64 `json:"bytes"`          // of those
	More   bool   `json:"more,omitempty"` // there may be more: counting took too long
	Rest   bool   `json:"rest,omitempty"` // all files are, but not yet the directory's manifest as it is now
	GoesOn bool   `json:"goes_on"`        // the node, a daemon, goes on with them when the directory is unmounted
}

// StorageStatus is how the node's content is kept by others, and what it keeps for them.
type StorageStatus struct {
	Files     map[string]int `json:"files"` // by state; an upload directory is several
	Links     int            `json:"links"` // signed
	Open      int            `json:"open_links"`
	Waiting   int            `json:"waiting_chunks"` // for room or providers
	Providers int            `json:"providers"`
	Fit       int            `json:"fitting_providers"`
	Networks  string         `json:"networks"`
	Unmounted []Upload       `json:"unmounted,omitempty"` // upload directories that go up without being mounted
	Owed      uint64         `json:"owed"`                // for pledges that are not paid yet

	Provider   bool  `json:"provider"` // the rest is of what is kept for others
	QuotaBytes int64 `json:"quota_bytes,omitempty"`
	UsedBytes  int64 `json:"used_bytes,omitempty"`
	Chunks     int   `json:"chunks,omitempty"`
}

// RepairedLinks is what a repair of uploads came to.
type RepairedLinks struct {
	Uploads int        `json:"uploads"`
	Links   int        `json:"links"`             // that were signed for before
	Lost    []LostLink `json:"lost,omitempty"`    // of these
	Placed  int        `json:"placed"`            // new ones
	Renewed int        `json:"renewed"`           // for longer
	Unheard int        `json:"unheard"`           // whose providers have not answered yet
	Waiting string     `json:"waiting,omitempty"` // why not all is kept as it should be
}

// LostLink is a link that a repair has found to be worth nothing.
type LostLink struct {
	Chunk    string `json:"chunk"`
	Provider string `json:"provider"`
	Reason   string `json:"reason"`
}
