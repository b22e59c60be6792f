package uploader

import (
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// LinkState is how far a link has come.
type LinkState uint8

// The states of a link, in order. What is said of a restart is what is done next after one.
const (
	// LinkCreated: provider, price and expiry are fixed. The provider may have heard of it. A restart asks again.
	LinkCreated LinkState = 1 + iota
	// LinkAgreed: the provider has promised space at a price. Nothing is paid or sent. A restart goes on to sealing.
	LinkAgreed
	// LinkChannel: the link has a price and no payment channel is known to be open. A restart asks for the channel again.
	LinkChannel
	// LinkEncrypting: the chunk is read and sealed. A restart begins that again.
	LinkEncrypting
	// LinkEncrypted: the sealed root is known, and never changes. A restart seals again, to the same root.
	LinkEncrypted
	// LinkSendingMap: the provider may have key and map. A restart seals again and sends them again.
	LinkSendingMap
	// LinkSendingData: the provider has key and map, and some segments. A restart asks what is missing.
	LinkSendingData
	// LinkDataReceived: the provider says that it has verified and synced all. A restart asks for the signature.
	LinkDataReceived
	// LinkAskingSignature: the provider may have signed. A restart asks again, under the same ID.
	LinkAskingSignature
	// LinkSigned: the pledge is verified and stored. Payment follows; a restart goes on with it. Only a failed
	// audit, a vanished provider, expiry or release leaves this state.
	LinkSigned
	// LinkFailed: it ended, for a reason. Only its release is still sent, if the provider may know of it.
	LinkFailed
)

var linkStates = [...]string{"", "created", "agreed", "establish_payment_channel", "encrypting", "encrypted",
	"sending_segment_map", "sending_data", "data_received", "asking_for_signature", "signed", "failed"}

// String returns the state's name.
func (s LinkState) String() string {
	if int(s) < len(linkStates) {
		return linkStates[s]
	}
	return "unknown"
}

// State is how far a file or chunk has come. It follows from links.
type State uint8

// The states of files and chunks.
const (
	Created   State = iota // nothing was done yet
	Uploading              // it has fewer links than it should
	Uploaded               // all links are there
	Failed                 // it has fewer, nothing is under way, and nobody is left to ask
)

// String returns the state's name.
func (s State) String() string {
	return [...]string{"created", "uploading", "uploaded", "failed"}[s&3]
}

// record is what the journal keeps of a link.
type record struct {
	ID       seal.LinkID
	Chunk    cid.Cid
	Provider peer.ID
	State    LinkState
	Bytes    int64
	Price    uint64
	Expiry   int64 // Unix seconds
	Created  int64
	Order    uint64
	Root     [32]byte
	Pledge   []byte
	Paid     bool
	Voucher  []byte
	// Delivered says that the provider has the voucher.
	Delivered bool
	Reason    string
	// Cause says that the provider is to blame for the failure.
	Cause bool
	// Release says that the link failed and the provider is to be told.
	Release bool
	// Proved says that the provider was sent the bytes right before it signed, or has answered an audit.
	Proved bool
	// Renews is the link that this one prolongs.
	Renews seal.LinkID
}

func (r *record) expiry() time.Time { return time.Unix(r.Expiry, 0) }

// renewal says whether the link prolongs another.
func (r *record) renewal() bool { return r.Renews != seal.LinkID{} }

// open says whether the link is on its way to a pledge.
func (r *record) open() bool { return r.State < LinkSigned }

// live says whether the link is signed or on its way.
func (r *record) live() bool { return r.State != LinkFailed }
