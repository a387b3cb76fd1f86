// Package bbolt is the backend on go.etcd.io/bbolt, the B+tree under etcd's key
// space and under HashiCorp's raft-boltdb.
//
// The log is one bucket of one file, raft.db, in the layout of kvlog. A Save is
// one read-write transaction: bbolt writes the changed pages, forces them to
// disk, writes the meta page that makes them current, and forces that: two
// fdatasync for every Save, and a third where the file grows.
//
// The data of snapshots is in files beside raft.db, as hashicorp/raft has it with
// raft-boltdb; with snapshot=engine it is in raft.db, in chunks.
//
// # A commit index alone
//
// bbolt can leave out the two fdatasync (DB.NoSync), but then the meta page may
// reach the disk before the pages that it points to, and a power cut leaves a
// file that does not open. So a hard state that changes nothing but the commit
// index waits in memory and is written with the next transaction, which rule 1
// allows.
//
// # Damage
//
// bbolt has no checksum on its pages and follows what they say. So Open walks the
// tree before bbolt does, as `bbolt check` would; the values carry checksums of
// their own; and a panic of bbolt, or a fault on the mapped file, becomes an error
// that names it. Both meta pages must be whole: bbolt would go back to the other
// one where one is not, and lose the last transaction without a word, but a power
// cut cannot tear the 80 bytes of a meta page within one sector.
//
// A file is built under another name and renamed, so that a crash while it is
// created leaves none.
package bbolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/internal/dirlock"
	"github.com/raftbench/raftbench/backends/internal/kvlog"
)

// Backend is bbolt under the storage contract.
var Backend = backends.Backend{
	Name:       "bbolt",
	Doc:        "go.etcd.io/bbolt: one copy-on-write B+tree file, two fdatasync for each Save",
	Durability: backends.Synced,
	Params:     params,
	Open:       open,
	OpenShared: openShared,
}

var params = []backends.Param{
	{Name: "freelist", Default: "hashmap", Meaning: "how free pages are kept in memory: array (bbolt's default, slow on a large fragmented file) or hashmap (etcd's default)"},
	{Name: "nofreelistsync", Default: "false", Meaning: "true leaves the list of free pages out of the file: less to write at each Save, and Open walks the whole file (etcd's setting)"},
	{Name: "fillpercent", Default: "90", Meaning: "how full a page is when it is split, in per cent (bbolt's default is 50; 90 is etcd's for keys that only grow, as here)"},
	{Name: "pagesize", Default: "4KiB", Meaning: "page size of a new file, a power of two from 1KiB to 64KiB (bbolt's default is the operating system's)"},
	{Name: "initialmmap", Default: "1GiB", Meaning: "address space mapped from the start; a file that outgrows it is mapped anew while Save waits (bbolt's default is 0, etcd's is 10GiB)"},
	kvlog.SnapshotParam,
}

const (
	fileName = "raft.db"
	newName  = "raft.db.new"
	// lockTimeout is for bbolt's own lock on the file: dirlock keeps out other
	// storages, but not other programs, such as `bbolt check`.
	lockTimeout = 200 * time.Millisecond
	// deleteStep is how many entries Release drops in one transaction: some
	// milliseconds, in which a Save waits.
	deleteStep = 1024
	// chunksPerBatch is how many MiB of a snapshot go into one transaction. Each costs
	// two or three syncs, and Save waits for it: with 4 a snapshot takes less than half
	// the time that it takes with 1, and a Save meanwhile half as long again; 8 gains
	// little over 4. docs/performance.md has the figures.
	chunksPerBatch = 4
)

type settings struct {
	options   bolt.Options
	fill      float64
	snapFiles bool
}

func parse(given map[string]string) (settings, error) {
	p := backends.NewSettings("bbolt", params, given)
	s := settings{
		options: bolt.Options{
			Timeout:         lockTimeout,
			FreelistType:    bolt.FreelistType(p.Choice("freelist", "array", "hashmap")),
			NoFreelistSync:  p.Bool("nofreelistsync"),
			PageSize:        int(p.Bytes("pagesize", 1<<10, 64<<10)),
			InitialMmapSize: int(p.Bytes("initialmmap", 0, 1<<40)),
			NoStatistics:    true,
		},
		fill:      float64(p.Int("fillpercent", 10, 100)) / 100,
		snapFiles: kvlog.SnapshotFiles(p),
	}
	if err := p.Err(); err != nil {
		return settings{}, err
	}
	if n := s.options.PageSize; n&(n-1) != 0 {
		return settings{}, &backends.ParamError{Backend: "bbolt", Reason: fmt.Sprintf("pagesize=%d: want a power of two", n)}
	}
	return s, nil
}

func open(opts backends.Options) (backends.Storage, backends.State, error) {
	e, err := openLocked(opts)
	if err != nil {
		return nil, backends.State{}, err
	}
	s, st, err := kvlog.Open(e.path, e, e.config())
	if err != nil {
		return nil, backends.State{}, err
	}
	return s, st, nil
}

func openShared(opts backends.Options) (backends.Shared, error) {
	e, err := openLocked(opts)
	if err != nil {
		return nil, err
	}
	return kvlog.NewShared(e.path, e, e.config(), nil), nil
}

// config: bbolt has one read-write transaction at a time.
func (e *engine) config() kvlog.Config {
	return kvlog.Config{DeleteStep: deleteStep, OneCommit: true, ChunksPerBatch: chunksPerBatch,
		SnapDir: kvlog.SnapDir(filepath.Dir(e.path)), SnapFiles: e.snapFiles}
}

// openLocked opens the engine in a directory that nobody else uses.
func openLocked(opts backends.Options) (*engine, error) {
	set, err := parse(opts.Params)
	if err != nil {
		return nil, err
	}
	release, err := dirlock.Lock(opts.Dir)
	if err != nil {
		return nil, err
	}
	e, err := openEngine(filepath.Join(opts.Dir, fileName), set)
	if err != nil {
		return nil, errors.Join(err, release())
	}
	e.release = release
	return e, nil
}

func openEngine(path string, set settings) (*engine, error) {
	dir := filepath.Dir(path)
	if err := os.Remove(filepath.Join(dir, newName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove an unfinished file: %w", err)
	}
	switch _, err := os.Stat(path); {
	case errors.Is(err, os.ErrNotExist):
		if err := create(dir, set); err != nil {
			return nil, fmt.Errorf("create %s: %w", path, err)
		}
	case err != nil:
		return nil, err
	}
	if err := kvlog.SyncFiles(dir); err != nil {
		return nil, err
	}
	if err := verify(path); err != nil {
		return nil, err
	}
	e, err := openFile(path, set.options)
	if err != nil {
		return nil, err
	}
	e.fill, e.snapFiles = set.fill, set.snapFiles
	return e, nil
}

// create makes a file with an empty bucket.
func create(dir string, set settings) error {
	path := filepath.Join(dir, newName)
	db, err := bolt.Open(path, 0o600, &set.options)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket(bucketName)
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Rename(path, filepath.Join(dir, fileName)); err != nil {
		return err
	}
	return kvlog.SyncPath(dir)
}

func openFile(path string, options bolt.Options) (*engine, error) {
	e := &engine{path: path}
	options.OpenFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
		f, err := os.OpenFile(name, flag, mode)
		e.file = f
		return f, err
	}
	err := e.guard(func() (err error) {
		e.db, err = bolt.Open(path, 0o600, &options)
		return err
	})
	switch {
	case err == nil:
		return e, nil
	case e.panicked.Load():
		return nil, errors.Join(err, e.Close())
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("%s: %w", path, backends.ErrLocked)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, &backends.DamageError{File: path, Err: err}
	default:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
}
