package blockcache

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// TakeOver is Reclaim for a file whose last name is about to go: where blocks of it are pinned, link is called with
// a path that it gives the file as one more name, once, and nothing is copied. The file must be on the store's file system and
// open nowhere for writing. If link fails the blocks are copied. Gone says that the other name has gone; until then
// Reclaim still gives the file back.
func (s *Store) TakeOver(ctx context.Context, name string, link func(path string) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.exit()
	have := false
	for _, b := range slices.Backward(s.recall(name)) { // the newest; of one inode one name is enough
		var took bool
		var err error
		if !have {
			took, err = s.takeOver(ctx, b, link)
			have = took
		}
		if err == nil && !took {
			err = s.reclaim(ctx, b)
		}
		if err != nil {
			return fmt.Errorf("take over lent file: %w", err)
		}
	}
	return nil
}

// takeOver gives a lent file the body's name; false if its blocks have to be copied or dropped.
func (s *Store) takeOver(ctx context.Context, b *body, link func(path string) error) (bool, error) {
	if l := b.loan.Load(); l == nil || l.taken {
		return true, nil
	}
	if b.changed.Load() || !b.complete() {
		return false, nil
	}
	here, err := s.seize(ctx, b)
	if !here || err != nil {
		return !here, err
	}
	defer b.stay()
	pinned, err := s.pinnedInBody(ctx, b)
	if err != nil || pinned == 0 || !s.same(b) {
		return false, err
	}
	if err := s.fs.Adopt(b.name, link); err != nil {
		s.log.Debug("a lent file cannot be linked", "name", b.loan.Load().Name, "err", err)
		return false, nil
	}
	if err := s.fs.SyncDirs(); err != nil { // before the other name goes
		return false, errors.Join(fmt.Errorf("sync folders: %w", err), s.fs.Remove(b.name))
	}
	s.taken(ctx, b)
	return true, nil
}

// same reports whether a lent file is what was lent.
func (s *Store) same(b *body) bool {
	f, err := s.fds.acquire(&b.blob)
	if err != nil {
		return false
	}
	defer s.fds.release(&b.blob)
	o, ok := f.(osFile)
	if !ok {
		return false
	}
	is, err := stampOf(o.File)
	was := b.loan.Load().Stamp
	return err == nil && is.Bytes == was.Bytes && is.ModTime == was.ModTime
}

// taken counts a body's bytes against the quota, and has it read by its own name.
func (s *Store) taken(ctx context.Context, b *body) {
	n := int64(b.haveBytes())
	if err := s.makeRoom(ctx, n, false); err != nil {
		s.used.Add(n)
	}
	b.mu.Lock()
	now := int64(b.have.bytes()) // some may have been lost since
	s.used.Add(now - n)
	s.lent.Add(-now)
	b.loan.Store(&loan{Loan: b.loan.Load().Loan, taken: true})
	b.mu.Unlock()
	s.fds.rename(&b.blob)
}

// Gone says that a lent file has no name any more but those that TakeOver gave it: it is the store's own now. What was
// not taken over is dropped. It does not wait for others: what somebody is at becomes the store's in Run. Where no file is lent by that name it costs nothing.
func (s *Store) Gone(ctx context.Context, name string) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.exit()
	for _, b := range s.recall(name) {
		if err := s.gone(ctx, b); err != nil {
			return fmt.Errorf("forget lent file: %w", err)
		}
		if b.orphan.Load() {
			s.nudge()
		}
	}
	return nil
}

// settleOrphans does what Gone could not.
func (s *Store) settleOrphans(ctx context.Context) error {
	var errs []error
	for _, v := range s.victims() {
		if v.body == nil || !v.body.orphan.CompareAndSwap(true, false) {
			continue
		}
		err := s.gone(ctx, v.body)
		if err != nil {
			v.body.orphan.Store(true)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *Store) gone(ctx context.Context, b *body) error {
	if !b.leave() {
		b.orphan.Store(true)
		return nil
	}
	if !b.lent() {
		s.forgetLoan(b)
		b.stay()
		return s.saveBodies([]*body{b})
	}
	err := s.dropBody(context.WithoutCancel(ctx), b)
	if err != nil {
		s.keepBody(b)
	}
	return err
}

// loadLoan finds out, when the store is opened, whether a lent body has become the store's: its file has the body's name,
// and no other.
func (s *Store) loadLoan(b *body, named bool) error {
	l := b.loan.Load()
	if l == nil {
		return nil
	}
	if named {
		links, err := s.fs.Links(b.name)
		if err != nil {
			return fmt.Errorf("look at %s: %w", b.name, err)
		}
		if links == 1 {
			b.loan.Store(nil) // written down with the next use
			return nil
		}
		if err := s.fs.Remove(b.name); err != nil { // TakeOver did not come to its end
			return fmt.Errorf("remove a second name of a lent file: %w", err)
		}
	}
	s.lendTo(b, l)
	return nil
}

// forgetLoan ends the loan of bodies that are the store's own now.
func (s *Store) forgetLoan(b *body) {
	s.mu.Lock()
	s.unlendLocked(b)
	s.mu.Unlock()
	b.mu.Lock()
	b.loan.Store(nil)
	b.mu.Unlock()
}
