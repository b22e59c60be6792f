package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Pin fetches a DAG and keeps it; progress is called now and then.
func (c *Client) Pin(ctx context.Context, r Read, progress func(Progress)) (pin Pin, err error) {
	for e, err := range c.events(ctx, "POST", "/v1/pins/"+r.CID.String(), readQuery(r)) {
		switch {
		case err != nil:
			return pin, err
		case e.Progress != nil && progress != nil:
			progress(*e.Progress)
		case e.Pin != nil:
			pin = *e.Pin
		}
	}
	return pin, nil
}

// Verify finds out where the blocks of content are; progress is called now and then.
func (c *Client) Verify(ctx context.Context, r Read, deep bool, progress func(Progress)) (v Verified, err error) {
	query := readQuery(r)
	query.Set("deep", strconv.FormatBool(deep))
	for e, err := range c.events(ctx, "POST", "/v1/verify/"+r.CID.String(), query) {
		switch {
		case err != nil:
			return v, err
		case e.Progress != nil && progress != nil:
			progress(*e.Progress)
		case e.Verified != nil:
			v = *e.Verified
		}
	}
	return v, nil
}

// Repair brings all blocks of content to the node; progress is called now and then.
func (c *Client) Repair(ctx context.Context, r Read, progress func(Progress)) (v Repaired, err error) {
	for e, err := range c.events(ctx, "POST", "/v1/repair/"+r.CID.String(), readQuery(r)) {
		switch {
		case err != nil:
			return v, err
		case e.Progress != nil && progress != nil:
			progress(*e.Progress)
		case e.Repaired != nil:
			v = *e.Repaired
		}
	}
	return v, nil
}

// List yields the entries of a directory as they come.
func (c *Client) List(ctx context.Context, r Read, detail bool) iter.Seq2[Entry, error] {
	query := readQuery(r)
	query.Set("detail", strconv.FormatBool(detail))
	return func(yield func(Entry, error) bool) {
		for e, err := range c.events(ctx, "GET", readPath("/v1/list/", r), query) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if e.Entry != nil && !yield(*e.Entry, nil) {
				return
			}
		}
	}
}

// UploadFiles yields the files in an upload directory as they come.
func (c *Client) UploadFiles(ctx context.Context, of UploadFilesRequest) iter.Seq2[UploadFile, error] {
	query := url.Values{"dir": {of.Dir}, "name": {of.Name}, "path": {of.Path}, "all": {strconv.FormatBool(of.All)}}
	return func(yield func(UploadFile, error) bool) {
		for e, err := range c.events(ctx, "GET", "/v1/uploads/files", query) {
			if err != nil {
				yield(UploadFile{}, err)
				return
			}
			if e.File != nil && !yield(*e.File, nil) {
				return
			}
		}
	}
}

// Sync waits until all that is in the upload directory at dir, an absolute path, is with providers. progress is called
// now and then; it may be nil.
func (c *Client) Sync(ctx context.Context, dir string, progress func(SyncProgress)) (s Synced, err error) {
	for e, err := range c.events(ctx, "POST", "/v1/sync", url.Values{"dir": {dir}}) {
		switch {
		case err != nil:
			return s, err
		case e.Syncing != nil && progress != nil:
			progress(*e.Syncing)
		case e.Synced != nil:
			s = *e.Synced
		}
	}
	return s, nil
}

// events reads a streamed answer; one without an end is an error.
func (c *Client) events(ctx context.Context, method, path string, query url.Values) iter.Seq2[event, error] {
	return func(yield func(event, error) bool) {
		resp, err := c.request(ctx, method, path, query, nil)
		if err != nil {
			yield(event{}, err)
			return
		}
		defer resp.Body.Close()
		d := json.NewDecoder(resp.Body)
		for {
			var e event
			if err := d.Decode(&e); err != nil {
				yield(event{}, connectionError(ctx, err))
				return
			}
			if e.Error != nil {
				yield(event{}, e.Error)
				return
			}
			if !yield(e, nil) || e.End {
				return
			}
		}
	}
}

// Stream is content on its way. Read returns an error instead of io.EOF when the node could not send all.
type Stream struct {
	Bytes uint64 // what is to come, as far as is known
	Kind  string // of what is exported

	ctx  context.Context
	resp *http.Response
}

// Cat streams the bytes of a file. The caller closes the stream.
func (c *Client) Cat(ctx context.Context, r Read) (*Stream, error) {
	return c.stream(ctx, "/content/", r)
}

// Export streams a file or tree as tar for [Unpack]. The caller closes the stream.
func (c *Client) Export(ctx context.Context, r Read) (*Stream, error) {
	return c.stream(ctx, "/v1/tar/", r)
}

func (c *Client) stream(ctx context.Context, path string, r Read) (*Stream, error) {
	resp, err := c.request(ctx, "GET", readPath(path, r), readQuery(r), nil, "TE", "trailers")
	if err != nil {
		return nil, err
	}
	bytes, _ := strconv.ParseUint(resp.Header.Get(headerBytes), 10, 64)
	return &Stream{Bytes: bytes, Kind: resp.Header.Get(headerKind), ctx: ctx, resp: resp}, nil
}

// Read reads content; io.EOF means that all of it has come.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.resp.Body.Read(p)
	if errors.Is(err, io.EOF) {
		if result := streamResult(s.resp.Trailer); result != nil {
			err = result
		}
	} else if err != nil {
		err = connectionError(s.ctx, err)
	}
	return n, err
}

// Close ends the stream, early if need be.
func (s *Stream) Close() error { return s.resp.Body.Close() }

func readPath(prefix string, r Read) string {
	path := prefix + r.CID.String()
	if r.Path != "" {
		for name := range strings.SplitSeq(r.Path, "/") {
			path += "/" + url.PathEscape(name)
		}
	}
	return path
}

func readQuery(r Read) url.Values {
	query := url.Values{}
	if r.Timeout > 0 {
		query.Set("timeout", r.Timeout.String())
	}
	for name, amount := range map[string]*uint64{"max-price": r.MaxPrice, "budget": r.Budget} {
		if amount != nil {
			query.Set(name, strconv.FormatUint(*amount, 10))
		}
	}
	return query
}
