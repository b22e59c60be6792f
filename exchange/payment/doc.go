// Package payment pays peers and is paid by them, through one-way channels. A newcomer calls
// [Accounts.Pay] on the paying side and [Accounts.Accept] on the side that is paid; [Open] makes both.
//
// A channel goes from a payer to a payee and holds a deposit, which the payer has laid down in a
// [Ledger]. A payment is a [Voucher]: the payer's signature under the sum of everything paid through
// the channel so far. So the last voucher says it all, a lost one does no harm, and a repeated one
// pays nothing. The payee settles its last voucher with the ledger now and then. Either side may
// close: the payee at once; the payer after a challenge period, in which the payee may still settle.
// What was not spent goes back to the payer.
//
// # Words
//
//   - amount: a count of the ledger's smallest unit ([Amount])
//   - opening: what the payer signs to lay down a deposit; its nonce is never used again ([Opening])
//   - purpose: what a channel is for; blocks and storage are never paid through the same ([Purpose])
//   - sequence: counts the vouchers of a channel
//   - to settle: to show the ledger a voucher, so that the payee's account gets what it adds
//   - ref: names what a payment is for; one ref is paid once
//   - budget: a name that spending is added up under, in total and by UTC day
//   - to retire: to pay no more through a channel, and to close it when next there is time
//
// # Promises
//
//   - No voucher is accepted over the deposit, nor one that shrinks; a voucher that was accepted is
//     on the disk before Accept returns.
//   - No ref is paid twice, over any crash, while it is kept: [Limits].RefLife, half a year unless set.
//     At most [Limits].MaxRefs are kept; at that count new refs are refused, none is dropped early.
//     [Accounts.Forget] drops one whose payment will not be asked for again.
//   - No voucher leaves before it is on the disk. Payment, ref and budgets are one transaction, with
//     [Accounts.PayTxn] and [Accounts.PayWith] also with what the caller writes.
//   - No deposit is lost: the nonce is on the disk before the ledger hears of it, opening is
//     idempotent, and channels of ours that we know nothing of are closed.
//   - After the last vouchers were sent again ([Accounts.Last]) Paid of one side equals Received of
//     the other. Where a channel was closed before its last voucher was settled, both take back what
//     the ledger gave back.
//   - What peers can make us keep is bounded by [Limits]. Closed channels stay listed for a while.
//     Sums of a peer are kept as long as one of its channels is, and go with the last.
//
// The paying side needs a peer ID that holds its public key (Ed25519 or secp256k1), as a voucher is
// verified by the payer's ID alone.
//
// # The book
//
// [Book] is the embedded ledger: one JSON file that several processes share. It is bookkeeping and
// not money: accounts begin at nothing and may go below it, and whoever can write the file can write
// anything into it. Signatures only keep a program that shares the book from acting for another peer
// by mistake. The sum over all accounts and deposits is zero. A file that is torn or not a book is
// refused and never written over.
//
// # Concurrency
//
// All exported methods may be called from many goroutines. Only [Accounts.Run] works on its own, and
// it starts no goroutine. The database must belong to one process.
package payment
