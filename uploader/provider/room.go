package provider

import (
	"fmt"

	"github.com/holdfastfs/holdfast/exchange/payment/durable"
)

// The database maps its logs into memory, where a full disk ends the process instead of failing a
// write. So some of its disk is kept free; what gives space back may use more of it.
const (
	minDBFree      = durable.MinFree
	minDBFreeToEnd = 1 << 20
)

// hasRoom returns an error that wraps ErrFull when the database's disk has less than least bytes free.
func (p *Provider) hasRoom(least uint64) error {
	if p.cfg.DB.Opts().InMemory {
		return nil
	}
	free, err := p.dbFree()
	if err == nil && free < least {
		err = fmt.Errorf("%d bytes are free on the database's disk, %d are needed: %w", free, least, ErrFull)
	}
	return err
}
