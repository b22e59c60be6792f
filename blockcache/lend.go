package blockcache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Stamp is what stat says of a lent file. Other bytes have another stamp.
type Stamp struct {
	Bytes      int64
	ModTime    int64 // Unix nanoseconds
	ChangeTime int64 // Unix nanoseconds
}

// Loan is a file of somebody else's in which a body's bytes lie.
type Loan struct {
	Name  string // of the file, for good
	Hint  string // for the lender: where the file was last
	Stamp Stamp
}

// Lender opens lent files. It may be called concurrently, and at any time while the store is open.
type Lender interface {
	// OpenLent opens a file for reading; the store closes it. An error that wraps [ErrNotFound] says that the file is
	// gone for good, any other that it cannot be had now.
	OpenLent(name, hint string) (*os.File, error)
}

const (
	maxLoanName = 1 << 10
	maxLoanHint = 4 << 10 // the value of a body's entry stays small; see maxSpansBytes
)

// errAway says that a lent file cannot be read now. It is dealt with by whoever opens the file.
var errAway = errors.New("lent file is away")

// loan is a Loan as a body has it. It does not change; a body gets another.
type loan struct {
	Loan
	taken bool // the file has the body's name too: it is the store's once it has no other
}

// append writes a loan behind the facts of its body.
func (l *loan) append(b []byte) []byte {
	b = binary.AppendVarint(b, l.Stamp.ModTime)
	b = binary.AppendVarint(b, l.Stamp.ChangeTime)
	b = binary.AppendUvarint(b, uint64(len(l.Name)))
	b = append(b, l.Name...)
	return append(b, l.Hint...)
}

// decodeLoan is the inverse of append.
func decodeLoan(b []byte, fileBytes uint64) (*loan, bool) {
	mtime, n := binary.Varint(b)
	if n <= 0 {
		return nil, false
	}
	b = b[n:]
	ctime, n := binary.Varint(b)
	if n <= 0 {
		return nil, false
	}
	b = b[n:]
	size, n := binary.Uvarint(b)
	if n <= 0 || size == 0 || size > maxLoanName || size > uint64(len(b)-n) || uint64(len(b)-n)-size > maxLoanHint {
		return nil, false
	}
	b = b[n:]
	stamp := Stamp{Bytes: int64(fileBytes), ModTime: mtime, ChangeTime: ctime}
	return &loan{Loan: Loan{Name: string(b[:size]), Hint: string(b[size:]), Stamp: stamp}}, true
}

// lent reports whether the body's bytes lie in a file that somebody else may change.
func (b *body) lent() bool {
	l := b.loan.Load()
	return l != nil && !l.taken
}

// LendBody begins the body of a file whose bytes stay where they are: Put notes where leaves lie and writes
// nothing, and nothing counts against the quota. Whoever lends the file calls Reclaim or TakeOver before
// its bytes change or go. Of several loans of one file the one that is committed last takes the place of the others. The
// error of a Commit that comes after Reclaim or TakeOver wraps [ErrRecalled].
func (s *Store) LendBody(ctx context.Context, l Loan) (*BodyWriter, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	if s.cfg.Lender == nil || l.Name == "" || len(l.Name) > maxLoanName || l.Stamp.Bytes <= 0 || l.Stamp.Bytes > maxFileBytes {
		return nil, fmt.Errorf("lend body: no lender, or %d bytes by a name of %d", l.Stamp.Bytes, len(l.Name))
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(l.Hint) > maxLoanHint {
		l.Hint = ""
	}
	id := s.nextID()
	b := &body{blob: blob{id: id, name: bodyName(id)}, fileBytes: uint64(l.Stamp.Bytes)}
	b.verified.Store(s.epoch)
	b.tick.Store(s.clock.Add(1))
	s.lendTo(b, &loan{Loan: l})
	s.mu.Lock()
	s.bodies[id] = b
	s.mu.Unlock()
	return &BodyWriter{s: s, b: b}, nil
}

// lendTo makes a body, which nobody reads yet, that of a lent file.
func (s *Store) lendTo(b *body, l *loan) {
	b.loan.Store(l)
	b.open = func() (file, error) { return s.openLent(b) }
	s.mu.Lock()
	s.loans[l.Name] = append(s.loans[l.Name], b)
	s.mu.Unlock()
}

// outdate drops the older bodies of a file that was lent once more, as it is after a change of its times alone. What
// somebody is using stays until the file is given back.
func (s *Store) outdate(ctx context.Context, b *body) {
	l := b.loan.Load()
	if l == nil || l.taken {
		return
	}
	for _, old := range s.lentAs(l.Name) {
		if old == b || !old.committed.Load() || !old.lent() || !old.leave() {
			continue
		}
		if err := s.giveBack(ctx, old, b); err != nil {
			s.log.Warn("an older body of a lent file stays for now", "name", l.Name, "err", err)
		}
	}
}

// unlendLocked forgets that a body is lent.
func (s *Store) unlendLocked(b *body) {
	l := b.loan.Load()
	if l == nil {
		return
	}
	var left []*body
	for _, other := range s.loans[l.Name] {
		if other != b {
			left = append(left, other)
		}
	}
	if s.loans[l.Name] = left; left == nil {
		delete(s.loans, l.Name)
	}
}

// openLent opens a lent file if it is the one that was lent.
func (s *Store) openLent(b *body) (file, error) {
	l := b.loan.Load()
	if l == nil || s.cfg.Lender == nil || b.changed.Load() {
		return nil, errAway
	}
	f, err := s.cfg.Lender.OpenLent(l.Name, l.Hint)
	if errors.Is(err, ErrNotFound) {
		s.spoil(b, err)
		return nil, errAway
	}
	if err != nil {
		s.log.Debug("a lent file cannot be read now", "name", l.Name, "err", err)
		return nil, errAway
	}
	is, err := stampOf(f)
	if err == nil && is == l.Stamp {
		return osFile{f}, nil
	}
	if err == nil && is.Bytes == l.Stamp.Bytes && is.ModTime == l.Stamp.ModTime {
		b.verified.Store(0) // another name or mode, most likely; each read asks the hash
		return osFile{f}, nil
	}
	_ = f.Close() // was not read
	if err == nil && b.loan.Load() == l {
		s.spoil(b, fmt.Errorf("it was %+v and is %+v", l.Stamp, is))
	}
	return nil, errAway
}

// spoil has nothing more be read from a lent file that is gone or has changed. Run drops what is known of it.
func (s *Store) spoil(b *body, why error) {
	if !b.changed.CompareAndSwap(false, true) {
		return
	}
	s.counts.lentChanged.Add(1)
	s.log.Warn("a lent file has changed, its blocks are dropped", "name", b.loan.Load().Name, "bytes", b.fileBytes, "err", why)
	s.mu.Lock()
	if k := key2(b); s.byFile[k] == b {
		delete(s.byFile, k)
	}
	s.mu.Unlock()
	s.nudge()
}

// dropChanged removes the bodies of lent files that have changed.
func (s *Store) dropChanged(ctx context.Context) error {
	var errs []error
	for _, v := range s.victims() {
		if v.body != nil && v.body.changed.Load() && v.body.leave() {
			err := s.dropBody(context.WithoutCancel(ctx), v.body)
			if err != nil {
				v.body.stay()
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// reachable reports whether a place's file is there, which is known of all but lent ones.
func (s *Store) reachable(p place) bool {
	if p.kind != inBody {
		return true
	}
	s.mu.RLock()
	b := s.bodies[p.id]
	s.mu.RUnlock()
	if b == nil || !b.lent() {
		return true
	}
	if _, err := s.fds.acquire(&b.blob); err != nil {
		return !errors.Is(err, errAway)
	}
	s.fds.release(&b.blob)
	return true
}

// Restamp says that a lent file has another stamp, or lies elsewhere, and has the bytes that it had. It does nothing
// where none is lent by that name.
func (s *Store) Restamp(ctx context.Context, l Loan) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.exit()
	if len(l.Hint) > maxLoanHint {
		l.Hint = ""
	}
	var all []*body
	for _, b := range s.lentAs(l.Name) {
		b.mu.Lock()
		old, is := b.loan.Load(), l
		if old != nil && is.Hint == "" {
			is.Hint = old.Hint // where it was is better than nothing
		}
		if old != nil && !old.taken && uint64(l.Stamp.Bytes) == b.fileBytes && old.Loan != is {
			b.loan.Store(&loan{Loan: is})
			if b.committed.Load() {
				all = append(all, b)
			}
		}
		b.mu.Unlock()
	}
	if len(all) == 0 {
		return nil
	}
	if err := s.saveBodies(all); err != nil {
		return fmt.Errorf("note a lent file's stamp: %w", err)
	}
	return ctx.Err()
}

// lentAs returns the bodies of a lent file.
func (s *Store) lentAs(name string) []*body {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return append([]*body(nil), s.loans[name]...)
}

// Loans returns the names, which begin with prefix, of files that are lent, in no special order.
func (s *Store) Loans(prefix string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var names []string
	for name := range s.loans {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names
}
