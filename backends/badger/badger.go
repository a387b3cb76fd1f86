// Package badger is the backend on github.com/dgraph-io/badger/v4, the LSM tree
// with a value log under Dgraph, in the layout of kvlog.
//
// A Save is one transaction: badger copies it into a memory-mapped write-ahead
// log (.mem), forces that with msync, forces the value log in the same way even
// where nothing was written to it, and puts the entries into a memtable. badger
// does not sync by default; here it always does. It cannot leave out the sync of
// one transaction, so that a commit index alone waits in memory for the next
// one, which rule 1 allows. A transaction is bounded to 15 % of the memtable; a
// larger Save becomes several.
//
// Release deletes key by key, since badger has no range tombstone. Compactions
// drop what was deleted. Where values are in the value log (valuethreshold), its
// garbage collection is run in the background; it knows only the garbage that a
// compaction has met, and since a log of large values has few and small keys,
// that may be long after. A small memtable makes it sooner.
//
// The data of snapshots is in files beside badger's own, and is written once. With
// snapshot=engine it is in badger, in chunks, and is written to a log, to a table, and
// by compactions.
//
// # Settings that are not badger's own
//
// SyncWrites is on. Conflict detection is off: there is one writer, which reads
// nothing. The memtable is 32 MiB where badger's default is 64 MiB, three of them
// may wait to be flushed where it is five, and the block cache is 8 MiB where it
// is 256 MiB: three nodes in one process stay below 600 MiB at worst. A file of
// the value log is 64 MiB where it is 1 GiB, because the garbage collection frees
// whole files. Two compactions run at a time where it is four. Blocks and values
// are checked against their checksums whenever they are read. Metrics are off.
//
// # What is mended here
//
// badger v4.9.6 does not sync its directory when it creates a log or a table: on
// a file system where the name of a synced file may still be lost, Save could
// lose its log. Commit syncs the directory whenever it has changed. A table made
// by a flush in the background may still be named by the manifest before its own
// name is durable; then Open says that it is missing.
//
// A failed sync of the value log is logged and forgotten (value.go, write), as
// are failed flushes and compactions, which are tried again for ever. The logger
// takes them as the failure that they are, and Save returns it.
//
// A log of length zero, left by a crash while it was created or removed, would
// make Open fail for ever; it is removed.
//
// A table that does not match its checksum is left out with a log line, and one
// whose end makes no sense ends the process (log.Fatalf). Open checks the tables
// before badger does. A write-ahead log is cut at its first bad record, whatever
// follows; Open looks at what follows.
//
// # What cannot be helped
//
// badger ends the process with log.Fatalf where an assertion fails (y.Check,
// y.AssertTrue), and its goroutines panic where nobody can recover. A write to a
// mapped file on a full disk is a SIGBUS, which ends the process, too; Commit
// therefore refuses to go on while there is still some space left. After a
// failure badger may not close; then the directory stays locked until the process
// ends.
package badger

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/internal/dirlock"
	"github.com/raftbench/raftbench/backends/internal/kvlog"
)

// Backend is badger under the storage contract.
var Backend = backends.Backend{
	Name:       "badger",
	Doc:        "github.com/dgraph-io/badger/v4: LSM tree with a value log, SyncWrites on, two msync for each Save",
	Durability: backends.Synced,
	Params:     params,
	Open:       open,
	OpenShared: openShared,
}

var params = []backends.Param{
	{Name: "valuethreshold", Default: "1MiB", Meaning: "entries from this size on go to the value log and not into the LSM tree (badger's default, its highest value)"},
	{Name: "memtable", Default: "32MiB", Meaning: "size at which the memtable is flushed (badger's default is 64MiB); it also bounds a transaction"},
	{Name: "memtables", Default: "3", Meaning: "memtables that may wait to be flushed before Save does (badger's default is 5)"},
	{Name: "vlogsize", Default: "64MiB", Meaning: "size of one file of the value log, the unit of its garbage collection, and the largest entry there can be (badger's default is 1GiB)"},
	{Name: "cache", Default: "8MiB", Meaning: "block cache (badger's default is 256MiB); a raft log is read at Open only"},
	{Name: "compression", Default: "snappy", Meaning: "of tables: none, snappy (badger's default) or zstd; logs are never compressed"},
	{Name: "compactors", Default: "2", Meaning: "compactions that may run at a time (badger's default is 4)"},
	kvlog.SnapshotParam,
}

const (
	// deleteStep is how many entries Release drops in one transaction.
	deleteStep = 1024
	// chunkBytes keeps snapshots out of the value log, unless they are sent there
	// by a lower valuethreshold.
	chunkBytes = 512 << 10
	// txnShare is the part of memtable that badger allows in a transaction
	// (db.go, checkAndSetOptions).
	txnPercent   = 15
	maxThreshold = 1 << 20 // badger's own
)

func parse(given map[string]string) (o badger.Options, snapFiles bool, err error) {
	p := backends.NewSettings("badger", params, given)
	snapFiles = kvlog.SnapshotFiles(p)
	o = badger.DefaultOptions("").
		WithSyncWrites(true).
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithBypassLockGuard(true). // dirlock
		WithChecksumVerificationMode(options.OnBlockRead).
		WithVerifyValueChecksum(true).
		WithValueThreshold(p.Bytes("valuethreshold", 0, maxThreshold)).
		WithMemTableSize(p.Bytes("memtable", 1<<20, 1<<30)).
		WithNumMemtables(p.Int("memtables", 1, 100)).
		WithValueLogFileSize(p.Bytes("vlogsize", 16<<20, 1<<30)).
		WithBlockCacheSize(p.Bytes("cache", 1<<20, 1<<40)).
		WithNumCompactors(p.Int("compactors", 2, 64))
	switch p.Choice("compression", "none", "snappy", "zstd") {
	case "none":
		o = o.WithCompression(options.None)
	case "snappy":
		o = o.WithCompression(options.Snappy)
	case "zstd":
		o = o.WithCompression(options.ZSTD)
	}
	if err := p.Err(); err != nil {
		return badger.Options{}, false, err
	}
	if limit := o.MemTableSize * txnPercent / 100; o.ValueThreshold > limit {
		return badger.Options{}, false, &backends.ParamError{Backend: "badger",
			Reason: fmt.Sprintf("valuethreshold=%d: want at most %d %% of the memtable, which is %d", o.ValueThreshold, txnPercent, limit)}
	}
	return o, snapFiles, nil
}

func open(opts backends.Options) (backends.Storage, backends.State, error) {
	e, err := openLocked(opts)
	if err != nil {
		return nil, backends.State{}, err
	}
	s, st, err := kvlog.Open(opts.Dir, e, e.config())
	if err != nil {
		return nil, backends.State{}, openError(opts.Dir, err)
	}
	return s, st, nil
}

func openShared(opts backends.Options) (backends.Shared, error) {
	e, err := openLocked(opts)
	if err != nil {
		return nil, err
	}
	return kvlog.NewShared(opts.Dir, e, e.config(), openError), nil
}

// openLocked opens the engine in a directory that nobody else uses.
func openLocked(opts backends.Options) (*engine, error) {
	o, snapFiles, err := parse(opts.Params)
	if err != nil {
		return nil, err
	}
	release, err := dirlock.Lock(opts.Dir)
	if err != nil {
		return nil, err
	}
	e, err := openEngine(opts.Dir, o)
	if err != nil {
		return nil, errors.Join(err, release())
	}
	e.snapFiles, e.release = snapFiles, release
	return e, nil
}

// config is below badger's own limits, which count some bytes for each key, too.
func (e *engine) config() kvlog.Config {
	return kvlog.Config{
		MaxBatchBytes: int(e.db.MaxBatchSize() * 3 / 4),
		MaxBatchOps:   int(e.db.MaxBatchCount() / 2),
		DeleteStep:    min(deleteStep, int(e.db.MaxBatchCount()/2)),
		ChunkBytes:    min(chunkBytes, int(e.db.MaxBatchSize()/2)),
		Released:      e.collectGarbage,
		SnapDir:       kvlog.SnapDir(e.dir),
		SnapFiles:     e.snapFiles,
		Room:          e.space.check,
	}
}
