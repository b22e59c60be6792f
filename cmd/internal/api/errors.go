package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/holdfastfs/holdfast/cmd/internal/hint"
)

// Code says of what kind an error is; commands and HTTP statuses follow from it.
type Code string

// The codes.
const (
	CodeUsage       Code = "usage"       // the request makes no sense
	CodeNotFound    Code = "not-found"   // no such name, pin, mount
	CodeUnavailable Code = "unavailable" // nobody gave a block in time
	CodeUnsupported Code = "unsupported" // a codec, a hash, a kind of node
	CodeCorrupt     Code = "corrupt"     // content that contradicts itself
	CodeNotDir      Code = "not-dir"     // a path through a file
	CodeIsDir       Code = "is-dir"      // a file was wanted
	CodeFull        Code = "full"        // no room for blocks
	CodeBusy        Code = "busy"        // in use
	CodeTooDear     Code = "too-dear"    // who has it asks more than may be paid
	CodeCanceled    Code = "canceled"    // the node stops, or the client went away
	CodeFailed      Code = "failed"      // anything else
)

// Error is a failure as it travels.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Advice  string `json:"hint,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// Hint returns the advice that goes with the error.
func (e *Error) Hint() string { return e.Advice }

// statuses of the codes; the others are 500.
var statuses = map[Code]int{
	CodeUsage: http.StatusBadRequest, CodeNotFound: http.StatusNotFound, CodeUnavailable: http.StatusGatewayTimeout,
	CodeUnsupported: http.StatusUnsupportedMediaType, CodeNotDir: http.StatusNotFound, CodeIsDir: http.StatusConflict,
	CodeFull: http.StatusInsufficientStorage, CodeBusy: http.StatusConflict, CodeCanceled: http.StatusServiceUnavailable,
	CodeTooDear: http.StatusPaymentRequired,
}

// asError finds the Error in err or makes one of it.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		out := *e
		out.Message = err.Error()
		out.Advice = hint.Of(err)
		return &out
	}
	code := CodeFailed
	if errors.Is(err, context.Canceled) {
		code = CodeCanceled
	}
	return &Error{Code: code, Message: err.Error(), Advice: hint.Of(err)}
}

// CodeOf is the code of err, or CodeFailed.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeFailed
}
