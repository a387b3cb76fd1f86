// Package etcdwal is etcd's own storage: its write-ahead log and its
// snapshotter, the real packages, in the layout of an etcd member directory.
//
//	Dir/wal/<seq>-<index>.wal   segments, each preallocated
//	Dir/snap/<term>-<index>.snap
//	Dir/db/<term>-<index>.snap   Data of streamed snapshots (package snapfile)
//	Dir/LOCK
//
// etcd's tools open the directory: wal.Verify and wal.ReadAll at the newest of
// wal.ValidSnapshotEntries, and etcd-dump-logs, because the metadata at the head
// of each segment is an etcdserverpb.Metadata (with one more field).
//
// # What etcd does here, and what this package adds
//
// Save is wal.Save, which syncs where raft.MustSync says so and when it cuts a
// segment. SaveSnap writes the snapshot's file, then the WAL's record of it, so
// that the WAL never names a snapshot that is not there; a crash in between
// leaves a file that nobody asks for. The rest is what the contract asks and
// etcd leaves to others or to luck:
//
//   - Names are made durable: etcd syncs neither the directory of a new snapshot
//     nor that of the first segment.
//   - Open takes the newest snapshot that the WAL names. etcd ignores those above
//     the saved commit index (wal.ValidSnapshotEntries), because its Save follows
//     SaveSnap; here, SaveSnap alone is a promise. backends.Recover raises the
//     hard state.
//   - A snapshot that the WAL names and that cannot be read back is an error.
//     etcd renames the file and takes an older one, although the log in between
//     may be gone.
//   - The tail that a crash tore is told from damage (see scan.go): wal.Repair
//     cuts the log wherever a length field was damaged.
//   - The hard state is written anew after Open. The WAL repeats it at the head
//     of each segment, but only one that was saved since the WAL was opened, so
//     that it could be released with an old segment.
//   - Release deletes segments; etcd only unlocks them and has a loop that keeps
//     the last five.
//   - Panics of the WAL become errors.
//   - A snapshot that is streamed (stream.go) has its Data in a file beside, as
//     etcd's database is beside its raft snapshots: in memory it never is as one.
package etcdwal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/internal/dirlock"
)

// Backend is the engine "etcd-wal".
var Backend = backends.Backend{
	Name:       name,
	Doc:        "etcd's write-ahead log and snapshotter (go.etcd.io/etcd/server/v3)",
	Durability: backends.Synced,
	Params:     params,
	Open:       open,
}

const name = "etcd-wal"

var params = []backends.Param{{
	Name: "segment", Default: "64MB",
	Meaning: "preallocated size of a log segment; one value at a time in a process, and for the life of a directory",
}}

// Segments smaller than a page are all head; larger ones overflow nothing, but
// nobody preallocates them.
const minSegment, maxSegment = 64 << 10, 4 << 30

// logger drops what the WAL logs, and turns its Fatal, which would end the
// process, into a panic, which guard catches.
var logger = zap.NewNop().WithOptions(zap.WithFatalHook(zapcore.WriteThenPanic))

type storage struct {
	walDir, snapDir string
	dbDir           string // of streamed snapshots; made when first needed
	snapper         *snap.Snapshotter
	unlock          func() error
	unlockSegment   func()

	// mu guards what follows. The WAL has a lock of its own, but its Sync does
	// not take it.
	mu     sync.Mutex
	w      *wal.WAL
	failed error // what ended the storage
}

func open(opts backends.Options) (_ backends.Storage, _ backends.State, err error) {
	settings := backends.NewSettings(name, params, opts.Params)
	segment := settings.Bytes("segment", minSegment, maxSegment)
	if err := settings.Err(); err != nil {
		return nil, backends.State{}, err
	}
	unlockSegment, err := useSegmentSize(segment)
	if err != nil {
		return nil, backends.State{}, err
	}
	defer func() {
		if err != nil {
			unlockSegment()
		}
	}()
	unlock, err := dirlock.Lock(opts.Dir)
	if err != nil {
		return nil, backends.State{}, fmt.Errorf("etcd-wal: %w", err)
	}
	s := &storage{
		walDir:        filepath.Join(opts.Dir, "wal"),
		snapDir:       filepath.Join(opts.Dir, "snap"),
		dbDir:         filepath.Join(opts.Dir, "db"),
		unlock:        unlock,
		unlockSegment: unlockSegment,
	}
	s.snapper = snap.New(logger, s.snapDir)
	var state backends.State
	if err := guard(s.walDir, func() error { state, err = s.recover(segment); return err }); err != nil {
		return nil, backends.State{}, errors.Join(fmt.Errorf("etcd-wal: %w", err), unlock())
	}
	return s, state, nil
}

// guard turns a panic of etcd's packages into an error.
func guard(file string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: etcd panicked: %v", file, p)
		}
	}()
	return f()
}

// do runs f on the open WAL. Its error, or one that another call got before, is
// final: after a failed sync nobody knows what is on disk.
func (s *storage) do(what string, f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	if err := guard(s.walDir, f); err != nil {
		s.failed = fmt.Errorf("etcd-wal: %s failed, and the storage with it: %s: %w", what, s.walDir, err)
		return s.failed
	}
	return nil
}

// failure is why nothing can be done any more, nil where it can.
func (s *storage) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Save implements [backends.Storage].
func (s *storage) Save(st *raftpb.HardState, ents []*raftpb.Entry) error {
	return s.do("save", func() error {
		if raft.IsEmptyHardState(st) {
			return s.w.Save(nil, ents)
		}
		// The WAL keeps the hard state to repeat it in later segments.
		return s.w.Save(proto.Clone(st).(*raftpb.HardState), ents)
	})
}

// Sync implements [backends.Storage].
func (s *storage) Sync() error {
	return s.do("sync", func() error { return s.w.Sync() })
}

// SaveSnap implements [backends.Storage]. Save goes on while the snapshot's file
// is written.
func (s *storage) SaveSnap(sn *raftpb.Snapshot) error {
	if bytes.HasPrefix(sn.GetData(), inFile) {
		return s.saveInFile(sn)
	}
	if err := s.failure(); err != nil {
		return err
	}
	return s.saveSnap(sn)
}

func (s *storage) saveSnap(sn *raftpb.Snapshot) error {
	err := guard(s.snapDir, func() error {
		if err := s.snapper.SaveSnap(sn); err != nil {
			return err
		}
		return syncDir(s.snapDir)
	})
	return s.do("save snapshot", func() error {
		if err != nil {
			return fmt.Errorf("%s: %w", s.snapDir, err)
		}
		return s.w.SaveSnapshot(walSnapshot(sn))
	})
}

func walSnapshot(sn *raftpb.Snapshot) *walpb.Snapshot {
	md := proto.Clone(sn.GetMetadata()).(*raftpb.SnapshotMetadata)
	if md.ConfState == nil {
		md.ConfState = &raftpb.ConfState{} // the WAL insists on one
	}
	return &walpb.Snapshot{Index: proto.Uint64(md.GetIndex()), Term: proto.Uint64(md.GetTerm()), ConfState: md.ConfState}
}

// Release implements [backends.Storage]. A failure to delete a file is no
// failure of the log: the storage goes on.
func (s *storage) Release(sn *raftpb.Snapshot) error {
	index := sn.GetMetadata().GetIndex()
	if err := s.do("release", func() error { return s.w.ReleaseLockTo(index) }); err != nil {
		return err
	}
	if err := errors.Join(deleteSegments(s.walDir, index), deleteSnapshots(s.snapDir, index), s.releaseFiles(index)); err != nil {
		return fmt.Errorf("etcd-wal: release up to %d: %w", index, err)
	}
	return nil
}

// Close implements [backends.Storage].
func (s *storage) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.failed, backends.ErrClosed) {
		return s.failed
	}
	err := guard(s.walDir, s.w.Close)
	if err != nil {
		err = fmt.Errorf("etcd-wal: close: %s: %w", s.walDir, err)
	}
	s.unlockSegment()
	s.failed = fmt.Errorf("etcd-wal: %s: %w", s.walDir, backends.ErrClosed)
	return errors.Join(err, s.unlock())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
