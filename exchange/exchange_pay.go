package exchange

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// payBatch is how many dues one call of Purse.Pay settles at most.
	payBatch = 256
	// payTimeout is the longest that a payment may take, and payLast the longest after the end of Run.
	payTimeout = 15 * time.Second
	payLast    = 2 * time.Second
	// payWorkers is how many peers are paid at a time.
	payWorkers = 8
	// refBytes is how long a payment's ref is.
	refBytes = 16
)

// AccountInfo is what may be and was spent for a dataset.
type AccountInfo struct {
	Dataset   cid.Cid
	Spending  Spending
	Spent     Amount // paid or owed
	Committed Amount // promised for blocks that are asked for
}

// SetSpending says what may be paid for a dataset from now on, in place of Limits.Spending. The last
// Limits.Accounts datasets are remembered, until Run ends. Wants that wait are looked at anew; those that
// failed have to be asked for again. The error wraps [ErrInvalid] without a Purse, and [ErrClosed] when
// the exchange is not running.
func (e *Exchange) SetSpending(dataset cid.Cid, s Spending) error {
	if e.cfg.Purse == nil && s != (Spending{}) {
		return fmt.Errorf("set spending for %s: %w: there is no purse to pay from", dataset, ErrInvalid)
	}
	if e.cfg.Purse == nil {
		return nil
	}
	_, spent := e.cfg.Purse.Spent(dataset)
	err := ErrClosed
	e.ask(func(m *machine) {
		m.Step(walletEvent{dataset, spent})
		m.Step(spendingEvent{dataset, s})
		if err = nil; m.money.wallets[dataset] == nil {
			err = fmt.Errorf("%w: too many datasets are in use", ErrInvalid)
		}
	})
	if err != nil {
		return fmt.Errorf("set spending for %s: %w", dataset, err)
	}
	return nil
}

// Accounts returns what may be and was spent for datasets, those not used for longest first. It is empty
// before Run and after it.
func (e *Exchange) Accounts() []AccountInfo {
	var infos []AccountInfo
	e.ask(func(m *machine) {
		for _, c := range m.money.order {
			infos = append(infos, AccountInfo{c.key, c.Spending, c.spent, c.committed})
		}
	})
	return infos
}

// openWallet tells the machine what was spent for the dataset of a want before, if anything may be.
func (l *loop) openWallet(w Want) {
	if l.cfg.Purse == nil || l.limits.Spending == (Spending{}) {
		return
	}
	key := w.Dataset
	if !key.Defined() {
		key = w.CID
	}
	if l.machine.money.wallets[key] == nil {
		_, spent := l.cfg.Purse.Spent(key)
		l.machine.Step(walletEvent{key, spent})
	}
}

// countDay tells the machine what was paid today, when a day begins and when something was paid.
func (l *loop) countDay(paid bool) {
	if l.cfg.Purse == nil {
		return
	}
	day := time.Now().Unix() / (24 * 60 * 60)
	if day == l.day && !paid {
		return
	}
	l.day = day
	today, _ := l.cfg.Purse.Spent(cid.Undef)
	l.machine.Step(dayEvent{today})
}

// till holds what is due to peers. A goroutine a peer pays it, and lives while something is due.
type till struct {
	workers chan struct{}
	// mu guards due. A peer is in it while its goroutine lives.
	mu  sync.Mutex
	due map[peer.ID][]Due
}

func newTill() *till {
	return &till{workers: make(chan struct{}, payWorkers), due: make(map[peer.ID][]Due)}
}

// add notes what is due, and returns the peers that nobody pays yet.
func (t *till) add(payments []payment) (idle []peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range payments {
		if _, busy := t.due[p.peer]; !busy {
			idle = append(idle, p.peer)
		}
		t.due[p.peer] = append(t.due[p.peer], p.due)
	}
	return idle
}

// batch returns what is to be paid next, or nothing when all is paid: then nobody pays the peer any more.
func (t *till) batch(p peer.ID) []Due {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.due[p]) == 0 {
		delete(t.due, p)
		return nil
	}
	return slices.Clone(t.due[p][:min(payBatch, len(t.due[p]))])
}

// settled takes out what was paid.
func (t *till) settled(p peer.ID, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.due[p] = slices.Clone(t.due[p][n:])
}

// payDues pays a peer until nothing is due. A payment that fails is repeated, later each time; readers
// never wait for it.
func (e *Exchange) payDues(ctx context.Context, p peer.ID) {
	for dues := e.till.batch(p); len(dues) > 0; dues = e.till.batch(p) {
		ref := make([]byte, refBytes)
		rand.Read(ref)
		if !e.payBatch(ctx, p, ref, dues) && !e.payLast(ctx, p, ref, dues) {
			return
		}
		e.till.settled(p, len(dues))
		e.answer(ctx, paidEvent{p, dues, nil})
	}
}

// payBatch tries to pay until it is done, or ctx has ended.
func (e *Exchange) payBatch(ctx context.Context, p peer.ID, ref []byte, dues []Due) bool {
	for failures := 1; ctx.Err() == nil; failures++ {
		err := e.payOnce(ctx, p, ref, dues)
		if err == nil {
			return true
		}
		if failures == 1 && ctx.Err() == nil {
			e.log.Warn("payment failed: nothing more is bought of the peer until it works", "op", "pay", "peer", p, "err", err)
		}
		e.answer(ctx, paidEvent{p, dues, err})
		wait := time.NewTimer(pause(failures, &e.limits))
		select {
		case <-wait.C:
		case <-ctx.Done():
		}
		wait.Stop()
	}
	return false
}

// payOnce pays when it is this peer's turn.
func (e *Exchange) payOnce(ctx context.Context, p peer.ID, ref []byte, dues []Due) error {
	select {
	case e.till.workers <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-e.till.workers }()
	ctx, stop := context.WithTimeout(ctx, payTimeout)
	defer stop()
	return e.cfg.Purse.Pay(ctx, p, ref, dues)
}

// payLast tries once more to pay a batch, as Run ends and all that is due will be forgotten.
func (e *Exchange) payLast(ctx context.Context, p peer.ID, ref []byte, dues []Due) bool {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), payLast)
	defer stop()
	err := e.cfg.Purse.Pay(ctx, p, ref, dues)
	if err != nil {
		e.log.Warn("some blocks were not paid for", "op", "pay", "peer", p, "blocks", len(dues), "err", err)
	}
	return err == nil
}
