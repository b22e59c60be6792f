package seal

import (
	"math"
	"math/bits"
	"time"
)

// MaxPrice is the largest price; it leaves room for a sign.
const MaxPrice = math.MaxInt64

// PriceOf returns what a chunk of so many bytes costs for a time, in whole seconds, at a price for a
// GiB and day, rounded up; a time that is negative costs nothing. What would be more than [MaxPrice] is MaxPrice. Both ends compute it from
// what the request says: for a [StoreRequest] from Now to Expiry; for a [Renew] from the expiry
// of the last pledge, or Now where that is later, to the new Expiry.
func PriceOf(perGiBDay uint64, bytes int64, d time.Duration) uint64 {
	const unit = (1 << 30) * 24 * 60 * 60
	if bytes <= 0 || d <= 0 || perGiBDay == 0 {
		return 0
	}
	over, units := bits.Mul64(uint64(bytes), uint64(d/time.Second))
	hi, lo := bits.Mul64(perGiBDay, units)
	lo, carry := bits.Add64(lo, unit-1, 0)
	hi += carry
	if over > 0 || hi >= unit {
		return MaxPrice
	}
	q, _ := bits.Div64(hi, lo, unit)
	return min(q, MaxPrice)
}
