package exchange

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
)

// DownloadOptions say how a download is done.
type DownloadOptions struct {
	// TotalBytes is what the whole download is known to have, for Progress; 0 when unknown.
	TotalBytes uint64
	// RootOnly fetches the root block alone. Offset and Length are ignored then.
	RootOnly bool
	// Offset and Length, in bytes from the start of what the root is, fetch a range of a file: the nodes
	// above the range and the leaves that hold it. A Length of 0 reaches to the end.
	Offset, Length uint64
}

// part says what of a DAG is downloaded: all, the root alone, or bytes of a file. end is past the last.
type part struct {
	rootOnly   bool
	start, end uint64
}

// wholeDAG is the part that is the whole DAG.
var wholeDAG = part{end: math.MaxUint64}

// part returns what the options ask for. Equal parts have equal values.
func (o DownloadOptions) part() part {
	p := part{start: o.Offset, end: math.MaxUint64}
	if o.RootOnly {
		return part{rootOnly: true}
	}
	if o.Length > 0 && o.Length < math.MaxUint64-o.Offset {
		p.end = o.Offset + o.Length
	}
	return p
}

// downloadKey tells downloads apart: equal ones are shared.
type downloadKey struct {
	root cid.Cid
	part part
}

// Progress says how far a download has come. A block that the DAG links twice counts twice.
type Progress struct {
	Blocks      uint64 // here, local ones included
	Bytes       uint64 // of those
	LocalBlocks uint64 // here from the start
	LocalBytes  uint64
	FoundBlocks uint64 // met so far: those here, and those linked from them
	TotalBytes  uint64 // as given in the options; 0 when unknown
	Done        bool   // the download has ended, with or without success
}

// Download is one caller's interest in a download. Callers that want the same of the same DAG share
// one. All methods are safe for concurrent use.
type Download struct {
	shared *transfer
	ctx    context.Context
	stop   context.CancelCauseFunc
	unhook func() bool
	events chan Progress // nil until asked for; guarded by shared.mu
}

// errWithdrawn is why a download ends that nobody wants any more.
var errWithdrawn = errors.New("download was cancelled")

// Download begins to fetch a DAG, or what the options say of it, into the store, or joins whoever is doing
// so already. Links are followed as they are learned, breadth first. Blocks that are in the store are walked and not fetched. The interest ends with ctx or with Cancel; when
// nobody has any, the download is given up. Root blocks of any codec known to Config.Links will do. A
// block that is too dear ends it: see [Exchange.Fetch].
func (e *Exchange) Download(ctx context.Context, root Want, opts DownloadOptions) (*Download, error) {
	switch {
	case !root.CID.Defined():
		return nil, fmt.Errorf("download: %w: undefined CID", ErrInvalid)
	case e.cfg.Links == nil:
		return nil, fmt.Errorf("download %s: %w: the exchange was given no way to follow links", root.CID, ErrInvalid)
	}
	select {
	case <-e.running:
	case <-ctx.Done():
		return nil, fmt.Errorf("download %s: %w", root.CID, context.Cause(ctx))
	}
	if !root.Dataset.Defined() {
		root.Dataset = root.CID
	}
	return e.downloads.join(ctx, e, root, opts)
}

// Cancel ends the interest. The download goes on while others have any.
func (d *Download) Cancel() { d.stop(errWithdrawn) }

// Wait returns once the DAG is in the store, the download has failed, or this interest has ended. A
// ctx that ends ends the waiting only.
func (d *Download) Wait(ctx context.Context) error {
	select {
	case <-d.shared.done:
	case <-d.ctx.Done():
	case <-ctx.Done():
	}
	err := or(context.Cause(d.ctx), context.Cause(ctx))
	select {
	case <-d.shared.done:
		err = d.shared.err
	default:
	}
	if err != nil {
		return fmt.Errorf("download %s: %w", d.shared.root.CID, err)
	}
	return nil
}

// Progress returns how far the download has come.
func (d *Download) Progress() Progress {
	d.shared.mu.Lock()
	defer d.shared.mu.Unlock()
	return d.shared.progress
}

// Events returns a channel on which the latest progress always waits; what the reader is too slow for
// is skipped. It is closed when the download has ended. Every call returns the same channel.
func (d *Download) Events() <-chan Progress {
	t := d.shared
	t.mu.Lock()
	defer t.mu.Unlock()
	if d.events == nil {
		d.events = make(chan Progress, 1)
		d.events <- t.progress
		if t.progress.Done || d.ctx.Err() != nil {
			close(d.events)
		}
	}
	return d.events
}

// downloads are the transfers that have not ended.
type downloads struct {
	places chan struct{} // a place for each that may run
	// mu guards what follows. It is taken before transfer.mu.
	mu        sync.Mutex
	open      map[downloadKey]*transfer
	closed    bool
	firstByte Histogram
}

// transfer is the download of one DAG on behalf of everybody who wants it.
type transfer struct {
	root   Want
	part   part
	begun  time.Time
	cancel context.CancelCauseFunc
	done   chan struct{}
	err    error // set before done is closed

	under, links, nodes atomic.Int64 // wants under way, links that wait, nodes remembered

	// mu guards what follows.
	mu       sync.Mutex
	shares   []*Download
	progress Progress
}

// join returns an interest in the download of root, which begins if there is none.
func (ds *downloads) join(ctx context.Context, e *Exchange, root Want, opts DownloadOptions) (*Download, error) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.closed {
		return nil, fmt.Errorf("download %s: %w", root.CID, ErrClosed)
	}
	key := downloadKey{root.CID, opts.part()}
	t := ds.open[key]
	if t == nil {
		t = &transfer{root: root, part: key.part, begun: time.Now(), done: make(chan struct{})}
		var life context.Context
		life, t.cancel = context.WithCancelCause(e.life)
		ds.open[key] = t
		e.tasks.Go(func() { ds.run(life, e, t) })
	}
	return ds.share(ctx, t, opts), nil
}

// share adds an interest to a transfer.
func (ds *downloads) share(ctx context.Context, t *transfer, opts DownloadOptions) *Download {
	d := &Download{shared: t}
	d.ctx, d.stop = context.WithCancelCause(ctx)
	t.mu.Lock()
	t.progress.TotalBytes = or(t.progress.TotalBytes, opts.TotalBytes)
	t.shares = append(t.shares, d)
	t.mu.Unlock()
	d.unhook = context.AfterFunc(d.ctx, func() { ds.part(t, d) })
	return d
}

// part ends an interest. The last one ends the transfer; whoever comes after begins a new one.
func (ds *downloads) part(t *transfer, d *Download) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	t.mu.Lock()
	t.shares = slices.DeleteFunc(t.shares, func(o *Download) bool { return o == d })
	last := len(t.shares) == 0
	if d.events != nil && !t.progress.Done {
		close(d.events)
	}
	t.mu.Unlock()
	if last {
		ds.forgetLocked(t)
		t.cancel(errWithdrawn)
	}
}

// run waits for a place and then walks the DAG.
func (ds *downloads) run(ctx context.Context, e *Exchange, t *transfer) {
	defer t.cancel(nil)
	err := error(nil)
	select {
	case ds.places <- struct{}{}:
		err = newWalk(e, t).run(ctx)
		<-ds.places
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	ds.mu.Lock()
	ds.forgetLocked(t)
	ds.mu.Unlock()
	t.finish(err)
}

// forgetLocked lets whoever wants the same begin anew.
func (ds *downloads) forgetLocked(t *transfer) {
	if key := (downloadKey{t.root.CID, t.part}); ds.open[key] == t {
		delete(ds.open, key)
	}
}

// close lets no further download begin. Those under way end with the exchange's life.
func (ds *downloads) close() {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.closed = true
}

// figures returns how many downloads have not ended, and how long their first blocks took.
func (ds *downloads) figures() (int, Histogram) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return len(ds.open), ds.firstByte
}

// began notes that the first block of a transfer came from a peer.
func (ds *downloads) began(t *transfer) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.firstByte.observe(time.Since(t.begun))
}

// publish lets f change the progress and tells everybody who listens. It never waits for them.
func (t *transfer) publish(f func(*Progress)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.publishLocked(f)
}

func (t *transfer) publishLocked(f func(*Progress)) {
	f(&t.progress)
	for _, d := range t.shares {
		if d.events == nil {
			continue
		}
		select {
		case <-d.events:
		default:
		}
		d.events <- t.progress // there is room: nobody else sends
	}
}

// finish tells everybody that the transfer has ended.
func (t *transfer) finish(err error) {
	t.mu.Lock()
	t.publishLocked(func(p *Progress) { p.Done = true })
	shares := t.shares
	t.shares = nil
	for _, d := range shares {
		if d.events != nil {
			close(d.events)
		}
	}
	t.mu.Unlock()
	t.err = err
	close(t.done)
	for _, d := range shares {
		d.unhook()
		d.stop(errWithdrawn)
	}
}
