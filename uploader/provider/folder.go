package provider

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/holdfastfs/holdfast/exchange/payment/durable"
)

// file is a copy's file. ReadAt and WriteAt may be called concurrently. Writes of an [alignedBuffer] go past the page
// cache where the file system can: a copy is written once and rarely read, and would push out what is.
type file interface {
	io.ReaderAt
	io.WriterAt
	Sync() error // returns once every write before it is on the disk
	Writeback()  // a hint: begin with that now
	Close() error
}

// folder holds the files of copies. It exists so that tests can lose and tear what was not synced.
type folder interface {
	Create(name string) (file, error) // fails if the name is taken
	Open(name string) (file, error)
	Remove(name string) error
	Each(fn func(name string) error) error
	Sync() error // makes creations and removals durable
	Free() (uint64, error)
}

type osFolder struct{ dir string }

// newOSFolder makes the folder.
func newOSFolder(dir string) (osFolder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return osFolder{}, fmt.Errorf("make folder for chunks: %w", err)
	}
	if err := durable.SyncPath(filepath.Dir(filepath.Clean(dir))); err != nil { // its own name
		return osFolder{}, fmt.Errorf("make folder for chunks: %w", err)
	}
	return osFolder{dir}, nil
}

func (o osFolder) open(name string, flags int) (file, error) {
	f, err := os.OpenFile(filepath.Join(o.dir, name), flags, 0o600)
	if err != nil {
		return nil, err
	}
	return &osFile{File: f}, nil
}

func (o osFolder) Create(name string) (file, error) {
	return o.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (o osFolder) Open(name string) (file, error) { return o.open(name, os.O_RDWR) }
func (o osFolder) Remove(name string) error       { return os.Remove(filepath.Join(o.dir, name)) }
func (o osFolder) Sync() error                    { return durable.SyncPath(o.dir) }
func (o osFolder) Free() (uint64, error)          { return durable.Free(o.dir) }

func (o osFolder) Each(fn func(name string) error) error {
	d, err := os.Open(o.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(256)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := fn(name); err != nil {
				return err
			}
		}
	}
}
