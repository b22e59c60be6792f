package node

import (
	"context"
	"errors"
	"syscall"

	"github.com/holdfastfs/holdfast/blockcache"
	"github.com/holdfastfs/holdfast/cmd/internal/api"
	"github.com/holdfastfs/holdfast/cmd/internal/hint"
	"github.com/holdfastfs/holdfast/exchange"
	"github.com/holdfastfs/holdfast/fs"
	"github.com/holdfastfs/holdfast/fs/unixfs"
	"github.com/holdfastfs/holdfast/uploader/dag"
)

// codes is read from the top; the first that an error is decides. Nothing else maps the rooms' errors to commands'.
var codes = []struct {
	is     error
	code   api.Code
	advice string
}{
	{blockcache.ErrFull, api.CodeFull, "raise quota: or lower min-free: in config.yaml, unpin something, or run holdfast gc"},
	{syscall.ENOSPC, api.CodeFull, "free some space on the disk of the repo"},
	{unixfs.ErrUnsupported, api.CodeUnsupported, "files and directories have the codecs dag-pb and raw"},
	{unixfs.ErrCorrupt, api.CodeCorrupt, "the content contradicts itself: whoever made it has to make it anew"},
	{fs.ErrCorrupt, api.CodeCorrupt, ""},
	{exchange.ErrTooDear, api.CodeTooDear, "pay more with --max-price and --budget, or connect to somebody who asks less"},
	{exchange.ErrBudget, api.CodeTooDear, "raise --budget, or day-budget: in config.yaml"},
	{exchange.ErrTimeout, api.CodeUnavailable, "nobody connected has it: holdfast connect to somebody who has, or wait longer with --timeout"},
	{fs.ErrUnavailable, api.CodeUnavailable, "nobody connected has it: holdfast connect to somebody who has, or wait longer with --timeout"},
	{context.DeadlineExceeded, api.CodeUnavailable, "nobody connected has it: holdfast connect to somebody who has, or wait longer with --timeout"},
	{unixfs.ErrNotDir, api.CodeNotDir, ""},
	{unixfs.ErrIsDir, api.CodeIsDir, "holdfast ls lists it, holdfast get copies it"},
	{unixfs.ErrNotFound, api.CodeNotFound, "holdfast ls lists what is there"},
	{blockcache.ErrNotFound, api.CodeNotFound, ""},
	{fs.ErrNotMounted, api.CodeNotFound, "holdfast mounts lists the mounts"},
	{fs.ErrBusy, api.CodeBusy, "end what uses it, or take it out of the tree with --force"},
	{dag.ErrName, api.CodeUsage, ""},
	{context.Canceled, api.CodeCanceled, ""},
	{exchange.ErrClosed, api.CodeCanceled, ""},
	{blockcache.ErrClosed, api.CodeCanceled, ""},
}

// answer gives err the code and the advice that commands go by.
func answer(err error) error {
	var done *api.Error
	if err == nil || errors.As(err, &done) {
		return err
	}
	for _, c := range codes {
		if errors.Is(err, c.is) {
			e := &api.Error{Code: c.code, Message: err.Error(), Advice: hint.Of(err)}
			var missing *missingError
			var dear *exchange.TooDearError
			var spent *exchange.BudgetError
			switch { // each names the block itself; how it was come by is of no use
			case errors.As(err, &missing):
				e.Message = missing.Error()
			case errors.As(err, &dear):
				e.Message = "block " + dear.CID.String() + ": " + dear.Error()
			case errors.As(err, &spent):
				e.Message = "block " + spent.CID.String() + ": " + spent.Error()
			}
			if e.Advice == "" {
				e.Advice = c.advice
			}
			return e
		}
	}
	return err
}
