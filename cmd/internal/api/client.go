package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"

	"github.com/ipfs/go-cid"

	"github.com/holdfastfs/holdfast/cmd/internal/hint"
)

// ErrNoNode says that nobody answers at the socket.
var ErrNoNode = errors.New("no node runs in this repo")

// Client talks to the owner of a repo. Its methods may be called by many; they end with their ctx.
type Client struct {
	path string // of the socket
	http *http.Client
	lost chan struct{} // closed when a hold has ended
}

// Dial returns a client of the node behind the socket at path; [ErrNoNode] if there is none.
func Dial(ctx context.Context, path string) (*Client, error) {
	probe, err := dialSocket(ctx, path)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("%w: %w", ErrNoNode, err)
	case err != nil:
		err = fmt.Errorf("connect to the node: %w", err)
		return nil, hint.Add(err, "the node at %s may belong to another user", path)
	}
	probe.Close()
	return &Client{path: path, lost: make(chan struct{}), http: &http.Client{Transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dialSocket(ctx, path) },
		WriteBufferSize:    256 << 10,
		ReadBufferSize:     256 << 10,
		DisableCompression: true,
		MaxIdleConns:       4,
	}}}, nil
}

// Hold keeps the node until release is called, where it would end with another command's work. It fails when the node
// is about to end or gone. It is called once.
func (c *Client) Hold(ctx context.Context) (release func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	resp, err := c.request(ctx, "GET", "/v1/hold", nil, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	go func() {
		defer close(c.lost)
		io.Copy(io.Discard, resp.Body) // ends when the node does, or with release
	}()
	return func() {
		cancel()
		<-c.lost
		resp.Body.Close()
	}, nil
}

// Lost is closed when a node that was held is gone.
func (c *Client) Lost() <-chan struct{} { return c.lost }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// request sends one request; the caller closes the body of the answer.
func (c *Client) request(ctx context.Context, method, path string, query url.Values, body io.Reader, header ...string) (*http.Response, error) {
	u := "http://holdfast" + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, fmt.Errorf("ask the node: %w", err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, connectionError(ctx, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return resp, nil
}

// connectionError drops the made-up address from an HTTP client's error.
func connectionError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		err = fmt.Errorf("%w: %w", ErrNoNode, err)
	}
	return hint.Add(fmt.Errorf("lost the node: %w", err), "its log says why it ended")
}

func readError(resp *http.Response) error {
	var body struct{ Error *Error }
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if json.Unmarshal(text, &body) != nil || body.Error == nil {
		return fmt.Errorf("the node answered %s", resp.Status)
	}
	return body.Error
}

// call sends in as JSON, if there is one, and reads the answer as a T.
func call[T any](ctx context.Context, c *Client, method, path string, query url.Values, in any) (out T, err error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return out, fmt.Errorf("ask the node: %w", err)
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.request(ctx, method, path, query, body)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return out, connectionError(ctx, err)
	}
	return out, nil
}

// ID asks who the node is.
func (c *Client) ID(ctx context.Context) (ID, error) {
	return call[ID](ctx, c, "GET", "/v1/id", nil, nil)
}

// Status asks for the node on one screen.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, "GET", "/v1/status", nil, nil)
}

// Peers lists connected and remembered peers.
func (c *Client) Peers(ctx context.Context) ([]Peer, error) {
	return call[[]Peer](ctx, c, "GET", "/v1/peers", nil, nil)
}

// Connect dials and remembers peers.
func (c *Client) Connect(ctx context.Context, addrs []string) ([]Peer, error) {
	return call[[]Peer](ctx, c, "POST", "/v1/peers", nil, connectRequest{Addresses: addrs})
}

// Forget ends the remembering of a peer.
func (c *Client) Forget(ctx context.Context, id string) error {
	_, err := call[struct{}](ctx, c, "DELETE", "/v1/peers/"+url.PathEscape(id), nil, nil)
	return err
}

// Stat describes what r names.
func (c *Client) Stat(ctx context.Context, r Read) (Entry, error) {
	return call[Entry](ctx, c, "GET", readPath("/v1/stat/", r), readQuery(r), nil)
}

// Mount mounts and returns when the mount answers.
func (c *Client) Mount(ctx context.Context, req MountRequest) (Mount, error) {
	return call[Mount](ctx, c, "POST", "/v1/mounts", nil, req)
}

// Unmount ends a mount of the node, or one that a dead node left; force also if it is in use.
func (c *Client) Unmount(ctx context.Context, dir string, force bool) error {
	query := url.Values{"dir": {dir}, "force": {strconv.FormatBool(force)}}
	_, err := call[struct{}](ctx, c, "DELETE", "/v1/mounts", query, nil)
	return err
}

// Mounts lists the node's mounts.
func (c *Client) Mounts(ctx context.Context) ([]Mount, error) {
	return call[[]Mount](ctx, c, "GET", "/v1/mounts", nil, nil)
}

// WaitUnmounted returns when dir is no mount of the node any more.
func (c *Client) WaitUnmounted(ctx context.Context, dir string) error {
	_, err := call[struct{}](ctx, c, "GET", "/v1/mounts/wait", url.Values{"dir": {dir}}, nil)
	return err
}

// Pins lists the pinned roots.
func (c *Client) Pins(ctx context.Context) ([]Pin, error) {
	return call[[]Pin](ctx, c, "GET", "/v1/pins", nil, nil)
}

// Unpin lets the blocks of a root go.
func (c *Client) Unpin(ctx context.Context, root cid.Cid) error {
	_, err := call[struct{}](ctx, c, "DELETE", "/v1/pins/"+root.String(), nil, nil)
	return err
}

// Channels lists the node's payment channels.
func (c *Client) Channels(ctx context.Context) ([]Channel, error) {
	return call[[]Channel](ctx, c, "GET", "/v1/channels", nil, nil)
}

// CloseChannels closes the payment channels with a peer and lists what is left.
func (c *Client) CloseChannels(ctx context.Context, peer string) ([]Channel, error) {
	return call[[]Channel](ctx, c, "DELETE", "/v1/channels/"+url.PathEscape(peer), nil, nil)
}

// RepairUploads has what providers keep audited, and placed anew where it is lost. It returns when that is done.
func (c *Client) RepairUploads(ctx context.Context, of UploadRef) (RepairedLinks, error) {
	return call[RepairedLinks](ctx, c, "POST", "/v1/uploads/repair", nil, of)
}

// Pending tells what of the upload directory at dir, an absolute path, is not with providers.
func (c *Client) Pending(ctx context.Context, dir string) (Pending, error) {
	return call[Pending](ctx, c, "GET", "/v1/pending", url.Values{"dir": {dir}}, nil)
}

// Uploads lists upload directories and what was added to be uploaded; with groups, the uploader's files of each.
func (c *Client) Uploads(ctx context.Context, groups bool) ([]Upload, error) {
	return call[[]Upload](ctx, c, "GET", "/v1/uploads", url.Values{"groups": {strconv.FormatBool(groups)}}, nil)
}

// RetryUpload takes uploads up at once.
func (c *Client) RetryUpload(ctx context.Context, of UploadRef) (UploadsChanged, error) {
	return call[UploadsChanged](ctx, c, "POST", "/v1/uploads/retry", nil, of)
}

// CancelUpload ends uploads until they are retried.
func (c *Client) CancelUpload(ctx context.Context, of UploadRef) (UploadsChanged, error) {
	return call[UploadsChanged](ctx, c, "POST", "/v1/uploads/cancel", nil, of)
}

// Links lists chunks at providers.
func (c *Client) Links(ctx context.Context) ([]Link, error) {
	return call[[]Link](ctx, c, "GET", "/v1/links", nil, nil)
}

// Providers lists storage providers that are known.
func (c *Client) Providers(ctx context.Context) ([]Provider, error) {
	return call[[]Provider](ctx, c, "GET", "/v1/providers", nil, nil)
}

// GC drops every block that is not pinned or in use.
func (c *Client) GC(ctx context.Context) (GCResult, error) {
	return call[GCResult](ctx, c, "POST", "/v1/gc", nil, nil)
}

// Add sends a tar stream made by [Pack] and returns its roots in order.
func (c *Client) Add(ctx context.Context, tar io.Reader, opts AddOptions) (roots []Added, err error) {
	query := url.Values{"preserve": {strconv.FormatBool(opts.Preserve)}, "pin": {strconv.FormatBool(opts.Pin)},
		"raw": {strconv.FormatBool(opts.Raw)}}
	if p := opts.Protect.String(); p != "" {
		query.Set("protect", p)
	}
	if opts.Upload {
		query.Set("upload", "true")
		query.Set("lifetime", opts.Lifetime.String())
	}
	if opts.Lane != nil {
		query.Set("lane", opts.Lane.name)
	}
	resp, err := c.request(ctx, "POST", "/v1/add", query, tar)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&roots); err != nil {
		return nil, connectionError(ctx, err)
	}
	return roots, nil
}
