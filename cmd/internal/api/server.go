package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// workPatience is how long a server that ends waits for its requests.
const workPatience = 15 * time.Second

// Server answers commands in the name of a node.
type Server struct {
	node Node
	log  *slog.Logger
	http *http.Server
	stop context.CancelFunc // ends running requests
	work sync.WaitGroup     // running requests; joined under mu unless ended

	lanes lanes

	mu      sync.Mutex // guards what follows
	holders int
	closing bool          // nobody may hold any more
	ended   bool          // no request may begin
	changed chan struct{} // closed when the last holder goes, and replaced
}

// NewServer returns a server that does nothing until [Server.Serve].
func NewServer(node Node, log *slog.Logger) *Server {
	s := &Server{node: node, log: log, changed: make(chan struct{})}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.http = &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s
}

// Serve answers on l until ctx ends, then ends what still runs, waits for it and returns nil.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-ctx.Done():
			s.stop()
			s.http.Close()
		case <-done:
		}
	}()
	err := s.http.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
		<-ctx.Done() // where it was a Drain, requests may still run
	} else {
		err = fmt.Errorf("serve commands: %w", err)
	}
	s.stop()
	s.http.Close()
	s.awaitWork()
	return err
}

// begin counts a request in, unless the server has ended.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.work.Add(1)
	}
	return !s.ended
}

// awaitWork returns when no request runs any more: what requests use is closed after it. One that does not end with
// its context is left behind, rather than the node with it.
func (s *Server) awaitWork() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.work.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(workPatience):
		s.log.Error("requests don't end, stopping without them")
	}
}

// Drain waits until nobody holds the node, refuses new requests and waits until the running ones have ended; or it
// ends with ctx.
func (s *Server) Drain(ctx context.Context) error {
	for {
		s.mu.Lock()
		free, changed := s.holders == 0, s.changed
		s.closing = s.closing || free
		s.mu.Unlock()
		if free {
			return s.http.Shutdown(ctx)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// hold keeps the node for a client until the client goes.
func (s *Server) hold(w http.ResponseWriter, r *http.Request) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return &Error{Code: CodeCanceled, Message: "the node is ending"}
	}
	s.holders++
	s.mu.Unlock()
	defer s.release()
	if err := http.NewResponseController(w).Flush(); err != nil {
		return nil // the client is gone
	}
	<-r.Context().Done()
	return nil
}

func (s *Server) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holders--; s.holders == 0 {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// handler is one endpoint; a returned error is answered if nothing has been written yet.
type handler func(w http.ResponseWriter, r *http.Request) error

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]handler{
		"GET /v1/hold":                 s.hold,
		"GET /v1/id":                   s.id,
		"GET /v1/status":               s.status,
		"GET /v1/peers":                s.peers,
		"POST /v1/peers":               s.connect,
		"DELETE /v1/peers/{id}":        s.forget,
		"GET /v1/stat/{cid}/{path...}": s.stat,
		"GET /v1/list/{cid}/{path...}": s.list,
		"GET /v1/tar/{cid}/{path...}":  s.export,
		"GET /content/{cid}/{path...}": s.content,
		"GET /v1/stat/{cid}":           s.stat,
		"GET /v1/list/{cid}":           s.list,
		"GET /v1/tar/{cid}":            s.export,
		"GET /content/{cid}":           s.content,
		"POST /v1/add":                 s.add,
		"POST /v1/files":               s.lane,
		"GET /v1/mounts":               s.mounts,
		"POST /v1/mounts":              s.mount,
		"DELETE /v1/mounts":            s.unmount,
		"GET /v1/mounts/wait":          s.waitUnmounted,
		"GET /v1/pins":                 s.pins,
		"POST /v1/pins/{cid}":          s.pin,
		"POST /v1/verify/{cid}":        s.verify,
		"POST /v1/repair/{cid}":        s.repair,
		"DELETE /v1/pins/{cid}":        s.unpin,
		"POST /v1/gc":                  s.gc,
		"GET /v1/channels":             s.channels,
		"GET /v1/uploads":              s.uploads,
		"GET /v1/uploads/files":        s.uploadFiles,
		"POST /v1/uploads/retry":       s.retryUpload,
		"POST /v1/uploads/cancel":      s.cancelUpload,
		"POST /v1/uploads/repair":      s.repairUploads,
		"GET /v1/pending":              s.pending,
		"POST /v1/sync":                s.sync,
		"GET /v1/links":                s.links,
		"GET /v1/providers":            s.providers,
		"DELETE /v1/channels/{peer}":   s.closeChannels,
		"GET /metrics":                 func(w http.ResponseWriter, r *http.Request) error { return s.metrics(w, r) },
		"GET /{$}":                     s.page,
	} {
		mux.Handle(pattern, s.endpoint(h))
	}
	return mux
}

// endpoint turns a handler's error into an answer.
func (s *Server) endpoint(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.begin() {
			http.Error(w, "the node is ending", http.StatusServiceUnavailable)
			return
		}
		defer s.work.Done()
		err := h(w, r)
		if err == nil {
			return
		}
		s.log.Debug("request failed", "request", r.Method+" "+r.URL.Path, "error", err)
		e := asError(err)
		status, ok := statuses[e.Code]
		if !ok {
			status = http.StatusInternalServerError
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]*Error{"error": e})
	})
}

// answer writes v as JSON unless err is set.
func answer[T any](w http.ResponseWriter, v T, err error) error {
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

// decode reads a small JSON body into v.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return &Error{Code: CodeUsage, Message: fmt.Sprintf("read request: %v", err)}
	}
	return nil
}

// readOf is the content that a request names.
func readOf(r *http.Request) (Read, error) {
	text := r.PathValue("cid")
	if p := r.PathValue("path"); p != "" {
		text += "/" + p
	}
	ref, err := ParseRef(text)
	if err != nil {
		return Read{}, err
	}
	read := Read{Ref: ref}
	if t := r.URL.Query().Get("timeout"); t != "" {
		read.Timeout, err = time.ParseDuration(t)
		if err != nil || read.Timeout <= 0 {
			return Read{}, &Error{Code: CodeUsage, Message: fmt.Sprintf("%q is not a duration such as 25s", short(t))}
		}
	}
	for name, amount := range map[string]**uint64{"max-price": &read.MaxPrice, "budget": &read.Budget} {
		if text := r.URL.Query().Get(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 63)
			if err != nil {
				return Read{}, &Error{Code: CodeUsage, Message: fmt.Sprintf("%s: %q is not an amount", name, short(text))}
			}
			*amount = &n
		}
	}
	return read, nil
}
