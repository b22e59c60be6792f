package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

func (s *Server) id(w http.ResponseWriter, r *http.Request) error {
	v, err := s.node.ID(r.Context())
	return answer(w, v, err)
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	v, err := s.node.Status(r.Context())
	return answer(w, v, err)
}

func (s *Server) peers(w http.ResponseWriter, r *http.Request) error {
	v, err := s.node.Peers(r.Context())
	return answer(w, v, err)
}

// connectRequest is the body of POST /v1/peers.
type connectRequest struct {
	Addresses []string `json:"addresses"`
}

func (s *Server) connect(w http.ResponseWriter, r *http.Request) error {
	var req connectRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	v, err := s.node.Connect(r.Context(), req.Addresses)
	return answer(w, v, err)
}

func (s *Server) forget(w http.ResponseWriter, r *http.Request) error {
	return answer(w, struct{}{}, s.node.Forget(r.Context(), r.PathValue("id")))
}

func (s *Server) stat(w http.ResponseWriter, r *http.Request) error {
	read, err := readOf(r)
	if err != nil {
		return err
	}
	v, err := s.node.Stat(r.Context(), read)
	return answer(w, v, err)
}

func (s *Server) add(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	opts := AddOptions{Preserve: q.Get("preserve") == "true", Pin: q.Get("pin") == "true", Raw: q.Get("raw") == "true"}
	if p := q.Get("protect"); p != "" {
		if err := opts.Protect.Set(p); err != nil {
			return err
		}
	}
	if q.Get("upload") == "true" {
		var err error
		opts.Upload = true
		if opts.Lifetime, err = time.ParseDuration(q.Get("lifetime")); err != nil || opts.Lifetime < 0 || opts.Protect == (Protection{}) {
			return &Error{Code: CodeUsage, Message: "what is uploaded needs a protection, and a lifetime such as 720h"}
		}
	}
	var l *lane
	if name := q.Get("lane"); name != "" {
		if l = s.lanes.take(name); l == nil {
			return &Error{Code: CodeUsage, Message: "add: there is no such file lane"}
		}
		defer l.close()
		// A failure is answered while the client waits for its file to be read, not for the end of the stream.
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			return fmt.Errorf("add: %w", err)
		}
	}
	opts.Content = l.content
	// Headers of small files come in many small pieces.
	v, err := s.node.Add(r.Context(), bufio.NewReaderSize(r.Body, packBytes), opts)
	return answer(w, v, err)
}

func (s *Server) channels(w http.ResponseWriter, r *http.Request) error {
	v, err := s.node.Channels(r.Context())
	return answer(w, v, err)
}

func (s *Server) closeChannels(w http.ResponseWriter, r *http.Request) error {
	v, err := s.node.CloseChannels(r.Context(), r.PathValue("peer"))
	return answer(w, v, err)
}

func (s *Server) sync(w http.ResponseWriter, r *http.Request) error {
	lines := startEvents(w)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	v, err := s.node.Sync(ctx, r.URL.Query().Get("dir"), func(p SyncProgress) {
		if lines.send(event{Syncing: &p}) != nil {
			cancel()
		}
		lines.flush()
	})
	if err != nil {
		return lines.end(event{Error: asError(err)})
	}
	return lines.end(event{Synced: &v})
}

func (s *Server) pending(w http.ResponseWriter, r *http.Request) error {
	v, err := s.node.Pending(r.Context(), r.URL.Query().Get("dir"))
	return answer(w, v, err)
}

func (s *Server) uploads(w http.ResponseWriter, r *http.Request) error {
	v, err := s.node.Uploads(r.Context(), r.URL.Query().Get("groups") == "true")
	return answer(w, v, err)
}

func (s *Server) uploadFiles(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	of := UploadFilesRequest{Dir: q.Get("dir"), Name: q.Get("name"), Path: q.Get("path"), All: q.Get("all") == "true"}
	lines, sent, flushed := startEvents(w), 0, time.Now()
	for f, err := range s.node.UploadFiles(r.Context(), of) {
		if err != nil {
			return lines.end(event{Error: asError(err)})
		}
		if err := lines.send(event{File: &f}); err != nil {
			return nil // the client is gone
		}
		if sent++; sent < 64 || time.Since(flushed) > progressEvery { // the next may be far away
			lines.flush()
			flushed = time.Now()
		}
	}
	return lines.end(event{})
}

func (s *Server) retryUpload(w http.ResponseWriter, r *http.Request) error {
	return changeUpload(w, r, s.node.RetryUpload)
}

func (s *Server) cancelUpload(w http.ResponseWriter, r *http.Request) error {
	return changeUpload(w, r, s.node.CancelUpload)
}

func (s *Server) repairUploads(w http.ResponseWriter, r *http.Request) error {
	return changeUpload(w, r, s.node.RepairUploads)
}

// changeUpload answers with what becomes of the uploads that a request names.
func changeUpload[T any](w http.ResponseWriter, r *http.Request, change func(context.Context, UploadRef) (T, error)) error {
	var of UploadRef
	if err := decode(w, r, &of); err != nil {
		return err
	}
	v, err := change(r.Context(), of)
	return answer(w, v, err)
}

func (s *Server) links(w http.ResponseWriter, r *http.Request) error {
	v, err := s.node.Links(r.Context())
	return answer(w, v, err)
}

func (s *Server) providers(w http.ResponseWriter, r *http.Request) error {
	v, err := s.node.Providers(r.Context())
	return answer(w, v, err)
}

func (s *Server) mounts(w http.ResponseWriter, r *http.Request) error {
	v, err := s.node.Mounts(r.Context())
	return answer(w, v, err)
}

func (s *Server) mount(w http.ResponseWriter, r *http.Request) error {
	var req MountRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	v, err := s.node.Mount(r.Context(), req)
	return answer(w, v, err)
}

func (s *Server) unmount(w http.ResponseWriter, r *http.Request) error {
	return answer(w, struct{}{}, s.node.Unmount(r.Context(), r.URL.Query().Get("dir"), r.URL.Query().Get("force") == "true"))
}

func (s *Server) waitUnmounted(w http.ResponseWriter, r *http.Request) error {
	return answer(w, struct{}{}, s.node.WaitUnmounted(r.Context(), r.URL.Query().Get("dir")))
}

func (s *Server) pins(w http.ResponseWriter, r *http.Request) error {
	v, err := s.node.Pins(r.Context())
	return answer(w, v, err)
}

func (s *Server) unpin(w http.ResponseWriter, r *http.Request) error {
	read, err := readOf(r)
	if err != nil {
		return err
	}
	return answer(w, struct{}{}, s.node.Unpin(r.Context(), read.CID))
}

func (s *Server) gc(w http.ResponseWriter, r *http.Request) error {
	v, err := s.node.GC(r.Context())
	return answer(w, v, err)
}

// event is one line of a streamed answer: progress or entries, and at last a result or an error.
type event struct {
	Progress *Progress `json:"progress,omitempty"`
	Entry    *Entry    `json:"entry,omitempty"`
	Pin      *Pin      `json:"pin,omitempty"`
	Verified *Verified `json:"verified,omitempty"`
	Repaired *Repaired `json:"repaired,omitempty"`

	File    *UploadFile   `json:"file,omitempty"`
	Syncing *SyncProgress `json:"syncing,omitempty"`
	Synced  *Synced       `json:"synced,omitempty"`

	Error *Error `json:"error,omitempty"`
	End   bool   `json:"end,omitempty"` // without it the stream is torn
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) error {
	read, err := readOf(r)
	if err != nil {
		return err
	}
	lines := startEvents(w)
	for e, err := range s.node.List(r.Context(), read, r.URL.Query().Get("detail") == "true") {
		if err != nil {
			return lines.end(event{Error: asError(err)})
		}
		if err := lines.send(event{Entry: &e}); err != nil {
			return nil // the client is gone
		}
	}
	return lines.end(event{})
}

func (s *Server) pin(w http.ResponseWriter, r *http.Request) error {
	read, err := readOf(r)
	if err != nil {
		return err
	}
	lines := startEvents(w)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	pin, err := s.node.Pin(ctx, read, func(p Progress) {
		if lines.send(event{Progress: &p}) != nil {
			cancel()
		}
		lines.flush()
	})
	if err != nil {
		return lines.end(event{Error: asError(err)})
	}
	return lines.end(event{Pin: &pin})
}

func (s *Server) verify(w http.ResponseWriter, r *http.Request) error {
	return s.report(w, r, func(ctx context.Context, read Read, progress func(Progress)) (event, error) {
		v, err := s.node.Verify(ctx, read, r.URL.Query().Get("deep") == "true", progress)
		return event{Verified: &v}, err
	})
}

func (s *Server) repair(w http.ResponseWriter, r *http.Request) error {
	return s.report(w, r, func(ctx context.Context, read Read, progress func(Progress)) (event, error) {
		v, err := s.node.Repair(ctx, read, progress)
		return event{Repaired: &v}, err
	})
}

// report answers with what do reports, and what comes of it at the end.
func (s *Server) report(w http.ResponseWriter, r *http.Request, do func(context.Context, Read, func(Progress)) (event, error)) error {
	read, err := readOf(r)
	if err != nil {
		return err
	}
	lines := startEvents(w)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	var last time.Time
	e, err := do(ctx, read, func(p Progress) {
		if time.Since(last) < progressEvery {
			return
		}
		last = time.Now()
		if lines.send(event{Progress: &p}) != nil {
			cancel()
		}
		lines.flush()
	})
	if err != nil {
		return lines.end(event{Error: asError(err)})
	}
	return lines.end(e)
}

// progressEvery is how often a client hears how far long work has come.
const progressEvery = 200 * time.Millisecond

// events writes a streamed answer.
type events struct {
	w   http.ResponseWriter
	enc *json.Encoder
}

func startEvents(w http.ResponseWriter) *events {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &events{w: w, enc: json.NewEncoder(w)}
}

func (e *events) send(v event) error { return e.enc.Encode(v) }

func (e *events) flush() { http.NewResponseController(e.w).Flush() }

// end writes the last line. It returns nil: nothing can be answered any more.
func (e *events) end(v event) error {
	v.End = true
	e.send(v)
	return nil
}
