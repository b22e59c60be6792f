package repo

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// KnownPeer is a peer that the node stays connected to.
type KnownPeer struct {
	ID        string   `json:"id"`
	Addresses []string `json:"addresses"` // multiaddrs, without /p2p/
}

// SavedMount is a mount that a daemon restores at start.
type SavedMount struct {
	Dir        string `json:"dir"`
	CID        string `json:"cid,omitempty"` // empty: any CID by name
	AllowOther bool   `json:"allow_other,omitempty"`

	NoPassthrough bool `json:"no_passthrough,omitempty"`

	Upload *SavedUpload `json:"upload,omitempty"`

	MaxPrice *uint64 `json:"max_price,omitempty"` // nil: the node's
	Budget   *uint64 `json:"budget,omitempty"`

	Timeout   time.Duration `json:"timeout,omitempty"`   // zero: the node's
	Readahead int64         `json:"readahead,omitempty"` // in bytes; zero: the node's
}

// SavePeer remembers p, over what was known of it. It is durable when SavePeer returns.
func (r *Repo) SavePeer(p KnownPeer) error { return r.save(PrefixPeers, p.ID, p) }

// ForgetPeer ends what SavePeer began; an unknown id is no error.
func (r *Repo) ForgetPeer(id string) error { return r.forget(PrefixPeers, id) }

// Peers lists the remembered peers, by ID.
func (r *Repo) Peers() ([]KnownPeer, error) { return load[KnownPeer](r.DB, PrefixPeers) }

// SaveMount remembers m, over what was to be mounted at its directory. It is durable when SaveMount returns.
func (r *Repo) SaveMount(m SavedMount) error { return r.save(PrefixMounts, m.Dir, m) }

// ForgetMount ends what SaveMount began; an unknown dir is no error.
func (r *Repo) ForgetMount(dir string) error { return r.forget(PrefixMounts, dir) }

// Mounts lists the mounts to restore, by directory.
func (r *Repo) Mounts() ([]SavedMount, error) { return load[SavedMount](r.DB, PrefixMounts) }

// SaveUpload remembers an upload directory that may have something to upload. It is durable when SaveUpload returns.
func (r *Repo) SaveUpload(u SavedUpload) error { return r.save(PrefixUnfinished, u.Name, u) }

// ForgetUpload ends what SaveUpload began; an unknown name is no error.
func (r *Repo) ForgetUpload(name string) error { return r.forget(PrefixUnfinished, name) }

// Uploads lists the upload directories that SaveUpload remembers, by name.
func (r *Repo) Uploads() ([]SavedUpload, error) { return load[SavedUpload](r.DB, PrefixUnfinished) }

func (r *Repo) save(prefix []byte, name string, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return err
	}
	err = update(r.DB, func(txn *badger.Txn) error { return txn.Set(append(append([]byte{}, prefix...), name...), value) })
	if err == nil {
		err = r.DB.Sync()
	}
	if err != nil {
		return fmt.Errorf("remember %s: %w", name, err)
	}
	return nil
}

func (r *Repo) forget(prefix []byte, name string) error {
	err := update(r.DB, func(txn *badger.Txn) error { return txn.Delete(append(append([]byte{}, prefix...), name...)) })
	if err == nil {
		err = r.DB.Sync()
	}
	if err != nil {
		return fmt.Errorf("forget %s: %w", name, err)
	}
	return nil
}

func load[T any](db *badger.DB, prefix []byte) (all []T, err error) {
	err = db.View(func(txn *badger.Txn) error {
		opts := badger.DefaultIteratorOptions
		opts.Prefix = prefix
		it := txn.NewIterator(opts)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			var v T
			err := it.Item().Value(func(b []byte) error { return json.Unmarshal(b, &v) })
			if err != nil {
				return fmt.Errorf("read %q: %w", it.Item().Key(), err)
			}
			all = append(all, v)
		}
		return nil
	})
	return all, err
}

// SavedUpload is what makes a mount an upload directory.
type SavedUpload struct {
	Name         string        `json:"name"`
	K            int           `json:"k"`
	M            int           `json:"m"`
	Redundancy   int           `json:"redundancy,omitempty"`
	Lifetime     time.Duration `json:"lifetime,omitempty"`
	AutoRenew    bool          `json:"auto_renew,omitempty"`
	StagingQuota int64         `json:"staging_quota,omitempty"` // in bytes
	TempNames    []string      `json:"temporary_names"`         // nil: the node's
}
