package payment

import "errors"

// Errors that callers tell apart.
var (
	ErrNoChannel = errors.New("no such payment channel")
	ErrClosed    = errors.New("payment channel is closed")
	ErrDeposit   = errors.New("deposit does not cover the amount")
	ErrSignature = errors.New("signature does not fit")
	ErrVoucher   = errors.New("voucher contradicts an earlier one")
	ErrParty     = errors.New("payment channel is between others")
	ErrTerms     = errors.New("terms of the payment channel are not acceptable")
	ErrExists    = errors.New("payment channel exists with other terms")
	ErrExpired   = errors.New("opening is too old or from the future")
	ErrNotDue    = errors.New("challenge period has not ended")
	ErrLimit     = errors.New("limit reached")
	ErrBudget    = errors.New("budget is used up")
	ErrRef       = errors.New("ref was paid with other terms")
	ErrOverflow  = errors.New("amount overflows")
	ErrMalformed = errors.New("malformed")
	ErrKey       = errors.New("peer ID does not hold a public key")
	ErrBook      = errors.New("not a usable book")
)
