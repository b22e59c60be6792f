// Package exchange fetches blocks from peers and gives them blocks, over Bitswap 1.2. Make one with
// [New], let [Exchange.Run] work, and ask for a block with [Exchange.Fetch] or for a whole DAG with
// [Exchange.Download].
//
// A want is a block that somebody waits for; each caller that waits is an intent of it. Wants of one
// dataset form a session, which knows the peers that hold the dataset. A peer is asked whether it has
// a block (want-have), says so (presence), is asked for the block (want-block), and everybody else
// who was asked is told to cancel. The decisions are taken by a machine without IO, clock, lock or
// channel, which one goroutine drives; [Network], [ProviderMap] and [Store] are what it acts through.
//
// The first block of a dataset is asked for at whoever says to have it; from then on the peers that
// deliver are asked at once, each in proportion to what it delivers. Peers that lack a block are
// passed by, slow ones lose it to others, those that break the protocol are shut out for a while. A
// block that nobody has stays wanted until a peer appears that has it, or until its callers give up.
//
// Peers may want money for blocks. [Exchange.SetSpending] says how much of it a dataset may cost; a [Purse]
// pays, for blocks that were verified and handed over. What is asked for at a price is counted as spent until
// it comes, so that no budget is passed. A block that is too dear everywhere fails soon, with the cheapest
// offer ([TooDearError], [BudgetError]). What came is handed over before it is paid; a peer that gives nothing
// more until payments have come is waited for only while that costs less time than a dearer one's price is worth.
//
// What it promises: every block returned hashes to its CID, was given to the store, and was fetched
// once however many wait for it. What peers can make it keep is bounded by [Limits]. Nothing survives
// a restart, as callers ask again.
//
// All exported methods may be called from many goroutines. Blocks are shared and must not be changed.
package exchange
