// Package hashicorpwal is hashicorp/raft-wal, the log under Consul and Vault, as
// storage for an etcd raft node.
//
//	Dir/wal/wal-meta.db                       which segments there are (bbolt)
//	Dir/wal/<first>-<id>.wal                  segments, preallocated
//	Dir/snap/<term>-<index>.snap              snapshots (package snapfile)
//	Dir/LOCK
//
// # The log of records
//
// A raft-wal is a log of consecutive numbers, which fits hashicorp/raft: entries
// in the log, term and vote in the "stable store" beside it, which is a bbolt
// transaction of two syncs. Here the log holds records, numbered by the order in
// which they were written and not by raft index. A record is an entry, or a hard
// state alone; the last record of every Save has the hard state with it.
//
//   - A Save is one batch, with one checksum and one sync, and so entries and hard
//     state are there together or not at all.
//   - A commit-only hard state is kept in memory and written with the next record,
//     by Sync, or by Close.
//   - Entries that replace others just follow them, and Open takes the last one of
//     each index. This also avoids what raft-wal calls a tail truncation, which in
//     v0.4.0 leaves a log that cannot be read any more once it was closed ("sealed
//     segment has no index block").
//   - Release deletes records from the front, up to the first that is needed, and
//     never the last, which has the hard state.
//   - A snapshot that is ahead of the log, or in conflict with it, writes nothing
//     to the log. Entries above the snapshot with a lower term than the snapshot's
//     were replaced by it (see backends.Recover), and a gap in the indexes is
//     explained by it.
//
// # What raft-wal leaves open
//
// raft-wal trusts the disk: it verifies the last batch only, and takes a damaged
// frame for the end of the log. After a crash it leaves what was torn behind the
// end, where it can be taken for the end of a later batch. A crash, or just a
// Close, between the write that fills a segment and its entry in wal-meta.db
// leaves a log to which nothing can be appended ("sealed"). And what it finds
// after a kill may not be on disk. So before raft-wal opens the log, this package
// syncs the files, reads and verifies all of it, clears what is torn, and
// finishes the rotation; see scan.go.
package hashicorpwal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	hraft "github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/internal/dirlock"
	"github.com/raftbench/raftbench/backends/internal/snapfile"
)

const name = "hashicorp-wal"

var params = []backends.Param{{
	Name: "segment", Default: "64MiB",
	Meaning: "size at which a log segment is sealed; it is preallocated",
}}

// Backend is the engine "hashicorp-wal".
var Backend = backends.Backend{
	Name:       name,
	Doc:        "HashiCorp's write-ahead log (github.com/hashicorp/raft-wal), entries and hard state in one batch",
	Durability: backends.Synced,
	Params:     params,
	Open:       open,
}

// The VFS of raft-wal takes no larger files; a segment of a few KiB is sealed by
// almost every batch.
const minSegment, maxSegment = 16 << 10, 1<<31 - 1

var _ backends.SnapshotStreamer = (*storage)(nil)

type storage struct {
	walDir, snapDir string
	unlock          func() error
	lastLine        *lastLine // of what raft-wal logs

	mu      sync.Mutex // guards what follows
	w       *wal.WAL
	meta    *metadb.BoltMetaDB
	failed  error // what ended the storage
	hs      *raftpb.HardState
	unsaved bool   // hs is newer than the last record
	first   uint64 // number of the first record; 0 if there is none
	last    uint64
	log     logIndex // where the entries are
	snap    uint64   // index of the newest snapshot
}

func open(opts backends.Options) (backends.Storage, backends.State, error) {
	settings := backends.NewSettings(name, params, opts.Params)
	segment := settings.Bytes("segment", minSegment, maxSegment)
	if err := settings.Err(); err != nil {
		return nil, backends.State{}, err
	}
	unlock, err := dirlock.Lock(opts.Dir)
	if err != nil {
		return nil, backends.State{}, fmt.Errorf("%s: %w", name, err)
	}
	s := &storage{
		walDir:   filepath.Join(opts.Dir, "wal"),
		snapDir:  filepath.Join(opts.Dir, "snap"),
		unlock:   unlock,
		lastLine: &lastLine{},
		meta:     &metadb.BoltMetaDB{},
	}
	var state backends.State
	err = guard(s.walDir, func() (err error) {
		state, err = s.recover(int(segment), opts.OnSync)
		return err
	})
	if err != nil {
		return nil, backends.State{}, errors.Join(fmt.Errorf("%s: %w", name, err), s.closeFiles(), unlock())
	}
	return s, state, nil
}

// guard turns a panic of raft-wal or bbolt, or a fault on a mapping of a damaged
// file, into an error.
func guard(file string, f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: panic: %v", file, p)
		}
	}()
	return f()
}

// lastLine remembers the last line that was written to it: raft-wal only logs
// why it could not rotate.
type lastLine struct {
	mu   sync.Mutex
	text string
}

func (l *lastLine) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = string(bytes.TrimSpace(b))
	return len(b), nil
}

func (l *lastLine) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text
}

func (s *storage) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: s.lastLine, DisableTime: true})
}

// do runs f on the open log. Its error, or one that another call got before, is
// final: after a failed sync nobody knows what is on disk.
func (s *storage) do(what string, f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	err := guard(s.walDir, f)
	if err == nil {
		return nil
	}
	if line := s.lastLine.String(); line != "" {
		err = fmt.Errorf("%w (%s)", err, line)
	}
	s.failed = fmt.Errorf("%s: %s failed, and the storage with it: %s: %w", name, what, s.walDir, err)
	return s.failed
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
		must := len(ents) > 0
		if !raft.IsEmptyHardState(st) {
			must = raft.MustSync(st, s.hs, len(ents))
			s.hs, s.unsaved = proto.Clone(st).(*raftpb.HardState), true
		}
		if !must {
			return nil
		}
		return s.append(ents)
	})
}

// append writes one batch: the entries, the last one with the hard state, or the
// hard state alone.
func (s *storage) append(ents []*raftpb.Entry) error {
	n := max(1, len(ents))
	logs, ptrs := make([]hraft.Log, n), make([]*hraft.Log, n)
	for i := range logs {
		r := record{number: s.last + 1 + uint64(i)}
		if i < len(ents) {
			r.entry = ents[i]
			if len(r.entry.Data) > maxData {
				return fmt.Errorf("entry %d has %d bytes; raft-wal can read back at most %d", r.entry.GetIndex(), len(r.entry.Data), maxData)
			}
		}
		if i == n-1 {
			r.hs = s.hs
		}
		r.toLog(&logs[i])
		ptrs[i] = &logs[i]
	}
	if len(ents) > 0 {
		if first, next := ents[0].GetIndex(), max(s.log.last(), s.snap)+1; first > next {
			return fmt.Errorf("entries begin at %d, the log ends at %d", first, next-1)
		}
	}
	if err := s.w.StoreLogs(ptrs); err != nil {
		return err
	}
	for i, e := range ents {
		s.log.put(e.GetIndex(), e.GetTerm(), s.last+1+uint64(i))
	}
	s.last += uint64(n)
	if s.first == 0 {
		s.first = 1
	}
	s.unsaved = false
	return nil
}

// Sync implements [backends.Storage].
func (s *storage) Sync() error {
	return s.do("sync", s.writeHardState)
}

func (s *storage) writeHardState() error {
	if !s.unsaved {
		return nil
	}
	return s.append(nil)
}

// SaveSnap implements [backends.Storage]. Save goes on while the snapshot's file
// is written.
func (s *storage) SaveSnap(sn *raftpb.Snapshot) error {
	if err := s.failure(); err != nil {
		return err
	}
	return s.snapshotSaved(sn.GetMetadata(), snapfile.Save(s.snapDir, sn))
}

// snapshotSaved takes note of a snapshot whose file is durable, or that could not
// be written (err).
func (s *storage) snapshotSaved(meta *raftpb.SnapshotMetadata, err error) error {
	index, term := meta.GetIndex(), meta.GetTerm()
	return s.do("save snapshot", func() error {
		if err != nil || index <= s.snap {
			return err
		}
		s.snap = index
		if !s.log.holds(index, term) {
			s.log = logIndex{}
		}
		return nil
	})
}

// StageSnap implements [backends.SnapshotStreamer].
func (s *storage) StageSnap(meta *raftpb.SnapshotMetadata, size int64, data io.Reader) (backends.StagedSnap, error) {
	if err := s.failure(); err != nil {
		return nil, err
	}
	f, err := snapfile.Stage(s.snapDir, meta, size, data)
	if snapfile.DiskFailed(err) {
		return nil, s.do("stage a snapshot", func() error { return err })
	}
	if err != nil {
		return nil, fmt.Errorf("%s: stage a snapshot: %w", name, err)
	}
	return snapfile.Snap{File: f, Failure: s.failure, Saved: func(err error) error { return s.snapshotSaved(meta, err) }}, nil
}

// OpenSnap implements [backends.SnapshotStreamer].
func (s *storage) OpenSnap(meta *raftpb.SnapshotMetadata) (io.ReadCloser, int64, error) {
	if err := s.failure(); err != nil {
		return nil, 0, err
	}
	data, size, err := snapfile.Open(s.snapDir, meta)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", name, err)
	}
	return data, size, nil
}

// Release implements [backends.Storage].
func (s *storage) Release(sn *raftpb.Snapshot) error {
	index := sn.GetMetadata().GetIndex()
	err := s.do("release", func() error {
		s.log.dropTo(index)
		keep := s.log.number()
		if keep == 0 {
			keep = s.last
		}
		if keep <= s.first {
			return nil
		}
		first := s.first
		s.first = keep
		return s.w.DeleteRange(first, keep-1)
	})
	if err != nil {
		return err
	}
	if err := snapfile.Release(s.snapDir, index); err != nil {
		return fmt.Errorf("%s: release up to %d: %w", name, index, err)
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
	var err error
	if s.failed == nil {
		err = guard(s.walDir, s.writeHardState)
	}
	s.failed = fmt.Errorf("%s: %s: %w", name, s.walDir, backends.ErrClosed)
	err = errors.Join(err, s.closeFiles())
	if err != nil {
		err = fmt.Errorf("%s: close: %s: %w", name, s.walDir, err)
	}
	return errors.Join(err, s.unlock())
}

// closeFiles closes what is open. The log does not close its meta store, which
// would keep the lock on it.
func (s *storage) closeFiles() error {
	return guard(s.walDir, func() error {
		var err error
		if s.w != nil {
			err = s.w.Close()
		}
		return errors.Join(err, s.meta.Close())
	})
}

// syncAll makes durable what is in a directory, names included. After a kill,
// files hold what was written and not synced; raft counts on what Open returns.
func syncAll(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := syncPath(filepath.Join(dir, f.Name())); err != nil {
			return err
		}
	}
	return syncPath(dir)
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// report calls onSync after f with how long it took.
func report(onSync func(time.Duration), f func() error) error {
	start := time.Now()
	err := f()
	onSync(time.Since(start))
	return err
}
