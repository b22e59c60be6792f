package unixfs

import (
	"context"
	"sync"
)

// maxPathBytes bounds the decoded nodes on one walk's path: honest paths hold a few times 60 KiB.
const maxPathBytes = 32 << 20

// walk lists, in order, what covers the bytes [lo, hi) of a file. Nodes that are decoded already are gone through;
// other dag-pb children are handed out as they are, so that the caller may load several at once and push them back.
type walk struct {
	f      *File
	lo, hi uint64
	stack  []step // what is left, the next on top
	held   int64  // cost of the nodes on the stack
}

// step is a span still to be handed out, or a node and the children of it that are left.
type step struct {
	span span
	node *dagNode // nil: span itself
	next int      // child of node; -1 is its own data
}

func (f *File) walk(lo, hi uint64) *walk {
	return &walk{f: f, lo: lo, hi: hi, stack: []step{{span: f.rootSpan()}}}
}

// push puts spans back, to be gone through in their order before all else.
func (w *walk) push(spans []span) {
	for i := len(spans) - 1; i >= 0; i-- {
		w.stack = append(w.stack, step{span: spans[i]})
	}
}

// next returns the next span; ok is false at the end. A span marked inner was decoded once and has since left the
// cache.
func (w *walk) next() (s span, ok bool, err error) {
	for len(w.stack) > 0 {
		top := &w.stack[len(w.stack)-1]
		if top.node == nil {
			s := top.span
			w.stack = w.stack[:len(w.stack)-1]
			if s.raw || s.data != nil {
				return s, true, nil
			}
			n := get(w.f.r.nodes, s.want.CID.KeyString())
			if n == nil {
				return s, true, nil
			}
			if err := w.enter(s, n); err != nil {
				return s, false, err
			}
			continue
		}
		s, ok, err := w.child(top)
		if ok || err != nil {
			return s, ok, err
		}
	}
	return span{}, false, nil
}

// enter goes into node n, which is what lies under s.
func (w *walk) enter(s span, n *dagNode) error {
	if err := checkSize(n, s.end-s.off); err != nil {
		return err
	}
	if s.depth > maxFileDepth {
		return corruptf("more than %d levels", maxFileDepth)
	}
	if w.held += n.cost(); w.held > maxPathBytes {
		return corruptf("inner nodes of more than %d bytes on one path", maxPathBytes)
	}
	st := step{span: s, node: n, next: -1}
	if w.lo >= s.off+uint64(len(n.content)) {
		st.next = n.child(w.lo - s.off)
	}
	w.stack = append(w.stack, st)
	return nil
}

// child takes the next child of the step on top. If ok is false something was pushed or popped instead.
func (w *walk) child(top *step) (s span, ok bool, err error) {
	n, base := top.node, top.span.off
	if top.next < 0 {
		top.next = 0
		if end := base + uint64(len(n.content)); end > base && base < w.hi {
			return span{want: top.span.want, off: base, end: end, data: n.content}, true, nil
		}
		return span{}, false, nil
	}
	for top.next < len(n.links) && n.ends[top.next] == n.childStart(top.next) {
		top.next++ // nothing below
	}
	i := top.next
	if i >= len(n.links) || base+n.childStart(i) >= w.hi {
		w.held -= n.cost()
		w.stack = w.stack[:len(w.stack)-1]
		return span{}, false, nil
	}
	top.next++
	s, err = w.f.childSpan(n, i, base, top.span.depth+1)
	if err != nil || s.raw {
		return s, err == nil, err
	}
	s.inner = n.ends[0]-n.childStart(0) > maxNodeBytes // a level of inner nodes, its last may be small
	w.stack = append(w.stack, step{span: s})
	return span{}, false, nil
}

// readAcross fills p from several spans, up to the Reader's Parallel at a time.
func (f *File) readAcross(ctx context.Context, p []byte, off uint64) error {
	end := off + uint64(len(p))
	w := f.walk(off, end)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		batch, err := w.take(f.r.parallel)
		if err != nil || len(batch) == 0 {
			return err
		}
		err = inParallel(ctx, len(batch), func(ctx context.Context, i int) error {
			s := &batch[i]
			content := s.data
			if content == nil {
				var err error
				if content, err = f.leafBytes(ctx, s); err != nil {
					return err
				}
				if content == nil {
					s.inner = true
					return nil
				}
			}
			lo, hi := max(off, s.off), min(end, s.end)
			copy(p[lo-off:hi-off], content[lo-s.off:])
			s.inner = false
			return nil
		})
		if err != nil {
			return err
		}
		f.remember(batch, end)
		if err := w.reenter(ctx, batch); err != nil {
			return err
		}
	}
}

// remember keeps the leaf that a sequential reader comes to next.
func (f *File) remember(batch []span, end uint64) {
	s := batch[len(batch)-1]
	if s.data == nil && !s.inner && s.end >= end {
		f.last.Store(&s)
	}
}

// take returns up to n spans.
func (w *walk) take(n int) ([]span, error) {
	var batch []span
	for len(batch) < n {
		s, ok, err := w.next()
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		batch = append(batch, s)
	}
	return batch, nil
}

// reenter pushes back the spans of batch that were found to be inner nodes.
func (w *walk) reenter(ctx context.Context, batch []span) error {
	var inner []span
	for _, s := range batch {
		if s.inner {
			inner = append(inner, s)
		}
	}
	if len(inner) == 0 {
		return nil
	}
	// The first is entered here and now, so that a cache too small to keep it does not stop the walk.
	w.push(inner[1:])
	n, err := w.f.loadInner(ctx, inner[0])
	if err != nil {
		return err
	}
	return w.enter(inner[0], n)
}

// inParallel calls do for 0 to n-1 at once and waits for all; the first error ends the others' context.
func inParallel(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	if n == 1 {
		return do(ctx, 0)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var once sync.Once
	var first error
	for i := range n {
		wg.Go(func() {
			if err := do(ctx, i); err != nil {
				once.Do(func() { first = err; cancel(err) })
			}
		})
	}
	wg.Wait()
	return first
}
