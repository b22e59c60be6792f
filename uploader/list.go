package uploader

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/holdfastfs/holdfast/uploader/seal"
)

// LinkStatus is how a link is doing.
type LinkStatus struct {
	ID       seal.LinkID
	Chunk    cid.Cid
	Provider peer.ID
	State    LinkState
	Bytes    int64
	Price    uint64 // for all of the time
	Paid     bool
	Expiry   time.Time
	Created  time.Time
	Reason   string // of failed; or the last trouble with payment
	Doubted  bool   // a repair waits for its audit
}

// ProviderStatus is what is known of a provider in this life.
type ProviderStatus struct {
	ID             peer.ID
	Networks       []string
	FreeBytes      uint64 // as it said
	PricePerGiBDay uint64
	Region         string
	Quoted         bool   // the three before are known
	Trouble        string // why it is not used
	Links          int    // signed
	Open           int    // on their way
	Bytes          int64  // signed
	Fits           bool   // by its terms
}

// Uploads lists all files, by ID.
func (u *Uploader) Uploads(ctx context.Context) (all []FileStatus, err error) {
	err = u.ask(ctx, func(m *machine) error {
		m.round++ // what was computed before is old
		for _, f := range m.files {
			all = append(all, m.status(f))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list uploads: %w", err)
	}
	slices.SortFunc(all, func(a, b FileStatus) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return all, nil
}

// Status tells how a file is doing, or [ErrNotFound].
func (u *Uploader) Status(ctx context.Context, id FileID) (s FileStatus, err error) {
	err = u.ask(ctx, func(m *machine) error {
		f := m.files[id]
		if f == nil {
			return ErrNotFound
		}
		m.round++
		s = m.status(f)
		return nil
	})
	if err != nil {
		return FileStatus{}, fmt.Errorf("status of file %s: %w", id, err)
	}
	return s, nil
}

// Links lists all links, in order of creation. With an ID it lists those of that file's chunks alone.
func (u *Uploader) Links(ctx context.Context, of ...FileID) (all []LinkStatus, err error) {
	err = u.ask(ctx, func(m *machine) error {
		for _, l := range m.linksOf(of) {
			_, doubted := m.doubts[l]
			all = append(all, LinkStatus{
				ID: l.ID, Chunk: l.Chunk, Provider: l.Provider, State: l.State, Bytes: l.Bytes, Price: l.Price, Paid: l.Paid,
				Expiry: l.expiry(), Created: time.Unix(l.Created, 0), Reason: l.Reason, Doubted: doubted,
			})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return all, nil
}

// linksOf returns the links of files, or all of them, in order.
func (m *machine) linksOf(files []FileID) (all []*link) {
	if len(files) == 0 {
		for _, l := range m.links {
			all = append(all, l)
		}
	}
	seen := make(map[*chunk]bool)
	for _, id := range files {
		f := m.files[id]
		if f == nil {
			continue
		}
		for _, g := range f.groups {
			for _, c := range g.chunks {
				if !seen[c] {
					seen[c] = true
					all = append(all, c.links...)
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b *link) int {
		if a.Order != b.Order {
			return int(min(1, max(-1, int64(a.Order)-int64(b.Order))))
		}
		return bytes.Compare(a.ID[:], b.ID[:])
	})
	return all
}

// ProviderList lists all providers that were met in this life, or have links.
func (u *Uploader) ProviderList(ctx context.Context) (all []ProviderStatus, err error) {
	err = u.ask(ctx, func(m *machine) error {
		for _, p := range m.known {
			s := ProviderStatus{
				ID: p.id, Networks: slices.Clone(p.networks), FreeBytes: p.quote.FreeBytes, PricePerGiBDay: p.quote.PricePerGiBDay,
				Region: p.quote.Region, Quoted: p.quoted, Trouble: p.trouble, Open: p.open, Fits: m.fresh(p) && p.trouble == "",
			}
			for _, l := range p.links {
				if l.State == LinkSigned {
					s.Links++
					s.Bytes += l.Bytes
				}
			}
			all = append(all, s)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list providers: %w", err)
	}
	return all, nil
}

// Stats are figures of the uploader.
type Stats struct {
	Files       map[State]int
	Links       map[LinkState]int
	SealedBytes int64  // in memory
	Waiting     int    // chunks that lack links and wait for room or providers
	Providers   int    // met
	Fit         int    // of these, those whose terms fit
	Owed        uint64 // for pledges that are not paid yet
}

// Stats returns figures as they are now.
func (u *Uploader) Stats(ctx context.Context) (Stats, error) {
	s := Stats{Files: make(map[State]int), Links: make(map[LinkState]int)}
	err := u.ask(ctx, func(m *machine) error {
		m.round++
		for _, f := range m.files {
			s.Files[m.status(f).State]++
		}
		for _, l := range m.links {
			s.Links[l.State]++
			if l.State == LinkSigned && !l.Paid {
				s.Owed += l.Price
			}
		}
		s.SealedBytes, s.Waiting, s.Providers = m.sealed, len(m.lacking)+len(m.stuck), len(m.known)
		for _, p := range m.known {
			if m.fresh(p) && p.trouble == "" {
				s.Fit++
			}
		}
		return nil
	})
	if err != nil {
		return Stats{}, fmt.Errorf("uploader figures: %w", err)
	}
	return s, nil
}

// watcher collects news for one that watches: of each file the last alone.
type watcher struct {
	mu    sync.Mutex // guards the rest
	news  map[FileID]FileStatus
	order []FileID
	left  bool          // it watches no more
	bell  chan struct{} // of one
}

// tell adds news, and returns false where nobody watches any more.
func (w *watcher) tell(news ...FileStatus) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left || len(news) == 0 {
		return !w.left
	}
	for _, s := range news {
		if _, ok := w.news[s.ID]; !ok {
			w.order = append(w.order, s.ID)
		}
		w.news[s.ID] = s
	}
	select {
	case w.bell <- struct{}{}:
	default:
	}
	return true
}

func (w *watcher) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left, w.news, w.order = true, nil, nil
}

func (w *watcher) take() (news []FileStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range w.order {
		news = append(news, w.news[id])
	}
	clear(w.news)
	w.order = w.order[:0]
	return news
}

// Watch calls fn with how each file is doing, and then whenever that has changed, until fn returns false
// or ctx ends. Of changes that come faster than fn takes them it sees the last. It is called by nobody else.
func (u *Uploader) Watch(ctx context.Context, fn func(FileStatus) bool) error {
	w := &watcher{news: make(map[FileID]FileStatus), bell: make(chan struct{}, 1)}
	defer w.leave()
	err := u.ask(ctx, func(m *machine) error {
		m.round++
		for _, f := range m.files {
			w.tell(m.status(f))
		}
		u.watchers[w] = struct{}{}
		return nil
	})
	if err != nil {
		return fmt.Errorf("watch uploads: %w", err)
	}
	for {
		select {
		case <-w.bell:
		case <-ctx.Done():
			return fmt.Errorf("watch uploads: %w", context.Cause(ctx))
		case <-u.closed:
			return fmt.Errorf("watch uploads: %w", ErrClosed)
		}
		for _, s := range w.take() {
			if !fn(s) {
				return nil
			}
		}
	}
}

// Wait returns nil once a file is uploaded, [ErrFailed] with the reason once it has failed, and
// [ErrNotFound] where there is none. One that is removed meanwhile has failed.
func (u *Uploader) Wait(ctx context.Context, id FileID) (err error) {
	if _, err := u.Status(ctx, id); err != nil {
		return fmt.Errorf("wait for upload: %w", err)
	}
	watchErr := u.Watch(ctx, func(s FileStatus) bool {
		if s.ID != id || s.State != Uploaded && s.State != Failed {
			return true
		}
		if s.State == Failed {
			err = fmt.Errorf("file %s: %w: %s", id, ErrFailed, s.Reason)
		}
		return false
	})
	if watchErr != nil {
		return fmt.Errorf("wait for upload of file %s: %w", id, watchErr)
	}
	return err
}
