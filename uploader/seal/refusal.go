package seal

import "fmt"

// RefusalCode says why a provider does not do what it was asked.
type RefusalCode uint8

// The codes; each says what the writer can do about it.
const (
	RefusedFull        RefusalCode = 1 + iota // no space left: ask another, or later
	RefusedPrice                              // the price is less than the provider's: ask for a quote
	RefusedExpiry                             // too late, or past: ask for a quote
	RefusedClockSkew                          // the clocks differ by more than 10 minutes
	RefusedUnknownLink                        // no such link of this writer: agree anew
	RefusedNoChannel                          // the link has a price and no channel is known: OpenChannel
	RefusedNotStored                          // the chunk is not here in full, or not any more
	RefusedMismatch                           // what was sent contradicts itself or what was agreed
	RefusedBusy                               // too many requests at once: the same again soon
	RefusedLimit                              // a limit of the provider is reached: later
	RefusedClosing                            // the provider stops: later
	RefusedUnpaid                             // the pledge was not paid in time: the chunk was dropped
	RefusedMalformed                          // the request could not be read
	RefusedFailed                             // the provider failed, and the writer did nothing wrong: later

	lastRefusal = RefusedFailed
)

var refusalNames = [...]string{"", "full", "price", "expiry", "clock-skew", "unknown-link", "no-channel", "not-stored",
	"mismatch", "busy", "limit", "closing", "unpaid", "malformed", "failed"}

// String returns the code's name, and "refused" for a code that this version does not know.
func (c RefusalCode) String() string {
	if c == 0 || c > lastRefusal {
		return "refused"
	}
	return refusalNames[c]
}

// MaxRefusalText bounds a refusal's text, in bytes; what is longer is cut when it is sent.
const MaxRefusalText = 256

// Refusal is a provider's answer that it does not do what it was asked. It is an error.
type Refusal struct {
	Code RefusalCode
	Text string // for people
}

// Error returns code and text.
func (r *Refusal) Error() string {
	if r.Text == "" {
		return r.Code.String()
	}
	return r.Code.String() + ": " + r.Text
}

// Is matches a *Refusal of the same code, so that errors.Is(err, &Refusal{Code: RefusedBusy}) asks for
// the code alone.
func (r *Refusal) Is(target error) bool {
	t, ok := target.(*Refusal)
	return ok && t.Code == r.Code
}

// Refuse makes a refusal with a text.
func Refuse(code RefusalCode, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Text: fmt.Sprintf(format, args...)}
}
