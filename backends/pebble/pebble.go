// Package pebble is the backend on github.com/cockroachdb/pebble/v2, the LSM tree
// under CockroachDB, in the layout of kvlog.
//
// A Save is one batch: pebble appends it to a write-ahead log, forces that with
// one fdatasync, and puts it into a memtable. A commit index alone is a batch
// without the fdatasync. Release is one range tombstone; most of what it deletes
// was never written to a table, and compactions drop the rest. The data of snapshots
// is in files beside pebble's own; with snapshot=engine it is in pebble, in chunks.
//
// # Settings that are not pebble's own
//
// The memtable is 32 MiB, where pebble's default is 4 MiB and CockroachDB uses 64
// MiB: three nodes in one process stay below 400 MiB at worst, and the log is
// rotated every 30,000 entries of 1 KiB. Four memtables may wait to be flushed,
// and writes are not stopped for the number of files in level 0 before it is
// 1000, as in CockroachDB: pebble's own limits of 2 and 12 are for small
// memtables. The newest on-disk format is used, which pebble leaves to the
// caller. A range tombstone is flushed after ten seconds, as in CockroachDB, so
// that a log that is released and then idle gives its space back.
//
// # When the disk fails
//
// pebble ends the process where its log or its manifest cannot be written
// (Logger.Fatalf), panics where a log cannot be rotated, with a mutex in a state
// that makes even a recovered panic fatal (v2.1.7, db.go, rotateWAL), and retries
// a failed flush for ever. None of that may happen to the other nodes of a
// process, so that pebble never sees an error of the disk: the goroutine that
// would see it, in the file system under pebble, in Fatalf or in the listener for
// background errors, takes note of it and then sleeps for ever. Save runs beside
// pebble and returns the error, as does every later call. What pebble had in
// memory stays until the process ends, and no file is changed any more, so that
// the directory can be opened again.
package pebble

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/internal/dirlock"
	"github.com/raftbench/raftbench/backends/internal/kvlog"
)

// Backend is pebble under the storage contract. Options.OnSync sees every
// fdatasync and fsync that pebble makes.
var Backend = backends.Backend{
	Name:       "pebble",
	Doc:        "github.com/cockroachdb/pebble/v2: LSM tree, one fdatasync of its write-ahead log for each Save",
	Durability: backends.Synced,
	Params:     params,
	Open:       open,
	OpenShared: openShared,
}

var params = []backends.Param{
	{Name: "memtable", Default: "32MiB", Meaning: "size at which the memtable is flushed and the write-ahead log rotated (pebble's default is 4MiB, CockroachDB's 64MiB)"},
	{Name: "memtables", Default: "4", Meaning: "memtables in memory at which Save waits for a flush (pebble's default is 2, CockroachDB's 4)"},
	{Name: "cache", Default: "8MiB", Meaning: "block cache (pebble's default); a raft log is read at Open only"},
	{Name: "bytespersync", Default: "512KiB", Meaning: "write-back of a table is started every so many bytes, so that its final sync is short (pebble's default)"},
	{Name: "walbytespersync", Default: "0B", Meaning: "the same for the write-ahead log; 0B leaves it to the sync of each Save (pebble's default)"},
	{Name: "compression", Default: "snappy", Meaning: "of tables: none, snappy (pebble's default), fastest, balanced or good; the write-ahead log is never compressed"},
	kvlog.SnapshotParam,
}

const (
	// chunkBytes is small because pebble looks for a flipped bit where a block does
	// not match its checksum: 328,000 checksums of the whole block (v2.1.7,
	// internal/bitflip), which takes half a second at this length and a quarter of
	// a minute at 1 MiB.
	chunkBytes     = 32 << 10
	chunksPerBatch = 32

	l0StopWrites      = 1000
	rangeDeleteFlush  = 10 * time.Second
	maxMemtable       = 1 << 30
	maxSync, maxCache = 1 << 30, 1 << 40
)

// settings are what Open was given.
type settings struct {
	options    *pebble.Options
	cacheBytes int64
	snapFiles  bool
}

func parse(given map[string]string) (settings, error) {
	p := backends.NewSettings("pebble", params, given)
	o := &pebble.Options{
		MemTableSize:                uint64(p.Bytes("memtable", 64<<10, maxMemtable)),
		MemTableStopWritesThreshold: p.Int("memtables", 2, 100),
		BytesPerSync:                int(p.Bytes("bytespersync", 4<<10, maxSync)),
		WALBytesPerSync:             int(p.Bytes("walbytespersync", 0, maxSync)),
		L0StopWritesThreshold:       l0StopWrites,
		FlushDelayDeleteRange:       rangeDeleteFlush,
		FormatMajorVersion:          pebble.FormatNewest,
	}
	set := settings{options: o, cacheBytes: p.Bytes("cache", 0, maxCache), snapFiles: kvlog.SnapshotFiles(p)}
	switch p.Choice("compression", "none", "snappy", "fastest", "balanced", "good") {
	case "none":
		o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	case "snappy":
		o.ApplyCompressionSettings(func() pebble.DBCompressionSettings {
			return pebble.UniformDBCompressionSettings(sstable.SnappyCompression)
		})
	case "fastest":
		o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	case "balanced":
		o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionBalanced })
	case "good":
		o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionGood })
	}
	return set, p.Err()
}

func open(opts backends.Options) (backends.Storage, backends.State, error) {
	return openOn(vfs.Default, opts)
}

func openOn(base vfs.FS, opts backends.Options) (backends.Storage, backends.State, error) {
	e, err := openEngine(base, opts)
	if err != nil {
		return nil, backends.State{}, err
	}
	s, st, err := kvlog.Open(opts.Dir, e, e.config(opts.Dir))
	if err != nil {
		return nil, backends.State{}, openError(opts.Dir, err)
	}
	return s, st, nil
}

func openShared(opts backends.Options) (backends.Shared, error) {
	e, err := openEngine(vfs.Default, opts)
	if err != nil {
		return nil, err
	}
	return kvlog.NewShared(opts.Dir, e, e.config(opts.Dir), openError), nil
}

func (e *engine) config(dir string) kvlog.Config {
	return kvlog.Config{Unsynced: true, RangeDelete: true, ChunkBytes: chunkBytes, ChunksPerBatch: chunksPerBatch,
		SnapDir: kvlog.SnapDir(dir), SnapFiles: e.snapFiles}
}

// openEngine opens pebble in a directory that nobody else uses.
func openEngine(base vfs.FS, opts backends.Options) (*engine, error) {
	set, err := parse(opts.Params)
	if err != nil {
		return nil, err
	}
	release, err := dirlock.Lock(opts.Dir)
	if err != nil {
		return nil, err
	}
	if err := kvlog.SyncFiles(opts.Dir); err != nil {
		return nil, errors.Join(err, release())
	}
	e := &engine{health: kvlog.NewHealth(), release: release, snapFiles: set.snapFiles}
	e.fs = &seamFS{FS: base, health: e.health, onSync: opts.OnSync}
	o := set.options
	o.FS = e.fs
	o.Logger = logger{e.health}
	o.EventListener = listener(e.health)
	o.Cache = pebble.NewCache(set.cacheBytes)
	err = e.health.Run(func() error {
		defer o.Cache.Unref()
		db, err := pebble.Open(opts.Dir, o)
		e.db.Store(db)
		return err
	})
	if err != nil {
		return nil, errors.Join(openError(opts.Dir, err), e.giveUp())
	}
	return e, nil
}

// openError says which errors mean damage: those that pebble marks as corruption,
// and a file that its manifest names and that is not there.
func openError(dir string, err error) error {
	if errors.As(err, new(*backends.DamageError)) {
		return err
	}
	if pebble.IsCorruptionError(err) || errors.Is(err, fs.ErrNotExist) {
		return &backends.DamageError{File: dir, Err: err}
	}
	return fmt.Errorf("open %s: %w", dir, err)
}
