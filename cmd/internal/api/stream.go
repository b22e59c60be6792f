package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"strconv"
	"time"
)

// Headers of streamed content. The trailer ends every stream whose length is not declared: "ok" or an
// Error as JSON. Without it the stream is torn.
const (
	headerBytes   = "Holdfast-Bytes" // what is to come, for progress
	headerKind    = "Holdfast-Kind"
	trailerResult = "Holdfast-Result"
)

// streamBytes is the size of pieces that content is copied in.
const streamBytes = 1 << 20

func (s *Server) export(w http.ResponseWriter, r *http.Request) error {
	read, err := readOf(r)
	if err != nil {
		return err
	}
	x, err := s.node.Export(r.Context(), read)
	if err != nil {
		return err
	}
	e := x.Entry()
	w.Header().Set("Content-Type", "application/x-tar")
	w.Header().Set(headerBytes, strconv.FormatUint(e.Bytes, 10))
	w.Header().Set(headerKind, e.Kind)
	return stream(w, func() error { return x.WriteTar(r.Context(), w) })
}

// content serves the bytes of a file. Who accepts trailers gets the reason of a failure in one; others get a
// declared length, ranges, and a broken connection on failure.
func (s *Server) content(w http.ResponseWriter, r *http.Request) error {
	read, err := readOf(r)
	if err != nil {
		return err
	}
	f, err := s.node.Open(r.Context(), read)
	if err != nil {
		return err
	}
	e := f.Entry()
	w.Header().Set("Etag", `"`+e.CID+`"`)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Type", contentType(read.Path))
	if r.Header.Get("Te") != "trailers" {
		seeker := &rangeReader{ctx: r.Context(), file: f, size: int64(e.Bytes)}
		defer seeker.Close()
		http.ServeContent(w, r, "", modTime(e), seeker)
		if seeker.err != nil {
			s.log.Warn("content ended early", "path", read.Ref.String(), "error", seeker.err)
		}
		return nil
	}
	w.Header().Set(headerBytes, strconv.FormatUint(e.Bytes, 10))
	return stream(w, func() error {
		in, err := f.Reader(r.Context(), 0)
		if err != nil {
			return err
		}
		defer in.Close()
		_, err = io.CopyBuffer(struct{ io.Writer }{w}, in, make([]byte, streamBytes))
		return err
	})
}

// stream runs write and reports how it went in the trailer.
func stream(w http.ResponseWriter, write func() error) error {
	w.Header().Set("Trailer", trailerResult)
	result := "ok"
	if err := write(); err != nil {
		b, _ := json.Marshal(asError(err))
		result = string(b)
	}
	w.Header().Set(trailerResult, result)
	return nil
}

// streamResult reads the trailer of a response whose body has been read to its end.
func streamResult(h http.Header) error {
	switch text := h.Get(trailerResult); text {
	case "ok":
		return nil
	case "":
		return fmt.Errorf("read the answer: %w", io.ErrUnexpectedEOF)
	default:
		e := &Error{}
		if err := json.Unmarshal([]byte(text), e); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		return e
	}
}

func contentType(p string) string {
	if t := mime.TypeByExtension(path.Ext(p)); t != "" {
		return t
	}
	return "application/octet-stream"
}

func modTime(e Entry) time.Time {
	if e.ModTime == nil {
		return time.Time{}
	}
	return *e.ModTime
}

// rangeReader is a File as http.ServeContent wants it.
type rangeReader struct {
	ctx  context.Context
	file File
	size int64
	off  int64
	in   io.ReadCloser
	err  error // why content ended early
}

func (r *rangeReader) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += r.off
	case io.SeekEnd:
		off += r.size
	}
	if off < 0 {
		return 0, errors.New("seek before the start")
	}
	if off != r.off {
		r.Close()
	}
	r.off = off
	return off, nil
}

func (r *rangeReader) Read(p []byte) (int, error) {
	if r.off >= r.size {
		return 0, io.EOF
	}
	if r.in == nil {
		in, err := r.file.Reader(r.ctx, uint64(r.off))
		if err != nil {
			r.err = err
			return 0, err
		}
		r.in = in
	}
	n, err := r.in.Read(p)
	r.off += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// Close ends the reader that is open, if one is.
func (r *rangeReader) Close() error {
	if r.in == nil {
		return nil
	}
	err := r.in.Close()
	r.in = nil
	return err
}
