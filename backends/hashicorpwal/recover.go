package hashicorpwal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/internal/snapfile"
)

// recover opens or creates the log.
//
// The directory of the snapshots is made last, when the log is complete and
// durable, so that a log that is missing beside it is damage, and not a crash
// during creation.
func (s *storage) recover(segmentBytes int, onSync func(time.Duration)) (backends.State, error) {
	_, err := os.Stat(s.snapDir)
	existed := err == nil
	if err := os.MkdirAll(s.walDir, 0o700); err != nil {
		return backends.State{}, err
	}
	if err := syncAll(s.walDir); err != nil {
		return backends.State{}, err
	}
	metaState, err := s.loadMeta(existed)
	if err != nil {
		return backends.State{}, err
	}
	found, err := scan(s.walDir, metaState)
	if err != nil {
		return backends.State{}, err
	}
	if err := s.finishRotation(metaState, found); err != nil {
		return backends.State{}, err
	}
	if err := s.openLog(segmentBytes, onSync, found.records); err != nil {
		return backends.State{}, err
	}
	if err := s.makeSnapDir(); err != nil {
		return backends.State{}, err
	}
	sn, err := snapfile.Load(s.snapDir)
	if err != nil {
		return backends.State{}, err
	}
	ents, err := s.replay(found.records, sn)
	if err != nil {
		return backends.State{}, err
	}
	state, err := backends.Recover(s.walDir, s.hs, sn, ents)
	if err != nil {
		return backends.State{}, err
	}
	s.hs = proto.Clone(state.HardState).(*raftpb.HardState)
	return state, nil
}

// loadMeta opens wal-meta.db. existed: a log was here before.
func (s *storage) loadMeta(existed bool) (types.PersistentState, error) {
	path := filepath.Join(s.walDir, metadb.FileName)
	if _, err := os.Stat(path); existed && err != nil {
		return types.PersistentState{}, &backends.DamageError{File: path, Err: err}
	}
	var state types.PersistentState
	err := probeMeta(path)
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return state, fmt.Errorf("%s: %w", path, backends.ErrLocked)
	}
	if err == nil {
		err = guard(path, func() (err error) {
			state, err = s.meta.Load(s.walDir)
			return err
		})
	}
	if err == nil && existed && len(state.Segments) == 0 {
		err = errors.New("it knows no segment")
	}
	if err != nil {
		return state, &backends.DamageError{File: path, Err: err}
	}
	return state, nil
}

// probeMeta reads wal-meta.db as raft-wal will. bbolt panics on some damage, and
// then leaves the file open and locked; raft-wal waits for that lock without an
// end. Here the file is known, and closed whatever happens.
func probeMeta(path string) error {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil // raft-wal makes it
	}
	var file *os.File
	open := func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
		file, err = os.OpenFile(name, flag, mode)
		return file, err
	}
	err := guard(path, func() error {
		db, err := bbolt.Open(path, 0o644, &bbolt.Options{Timeout: time.Second, OpenFile: open})
		if err != nil {
			return err
		}
		err = db.View(func(tx *bbolt.Tx) error {
			bucket := tx.Bucket([]byte(metadb.MetaBucket))
			if bucket == nil || tx.Bucket([]byte(metadb.StableBucket)) == nil {
				return errors.New("a bucket is missing")
			}
			bucket.Get([]byte(metadb.MetaKey))
			return nil
		})
		return errors.Join(err, db.Close())
	})
	if file != nil && err != nil {
		// Closing it alone would leave the lock to a child that is being started.
		syscall.Flock(int(file.Fd()), syscall.LOCK_UN)
		file.Close()
	}
	return err
}

// finishRotation enters in wal-meta.db that the tail is sealed, and a new tail
// behind it, whose file raft-wal makes when it opens the log.
func (s *storage) finishRotation(state types.PersistentState, found *scanned) error {
	if found.indexStart == 0 {
		return nil
	}
	tail := &state.Segments[len(state.Segments)-1]
	tail.SealTime, tail.IndexStart = time.Now(), found.indexStart
	tail.MaxIndex = found.records[len(found.records)-1].number
	next := types.SegmentInfo{
		ID: state.NextSegmentID, BaseIndex: tail.MaxIndex + 1, MinIndex: tail.MaxIndex + 1,
		Codec: tail.Codec, SizeLimit: tail.SizeLimit, CreateTime: time.Now(),
	}
	state.Segments, state.NextSegmentID = append(state.Segments, next), state.NextSegmentID+1
	if err := s.meta.CommitState(state); err != nil {
		return fmt.Errorf("finish the rotation of %s: %w", segmentPath(s.walDir, *tail), err)
	}
	return nil
}

// openLog opens the log with raft-wal, which must find what scan found.
func (s *storage) openLog(segmentBytes int, onSync func(time.Duration), records []record) error {
	w, err := wal.Open(s.walDir,
		wal.WithMetaStore(s.meta),
		wal.WithSegmentFiler(segment.NewFiler(s.walDir, timedFS{fs.New(), onSync})),
		wal.WithSegmentSize(segmentBytes),
		wal.WithLogger(s.logger()))
	if err != nil {
		return fmt.Errorf("open %s: %w", s.walDir, err)
	}
	s.w = w
	if n := len(records); n > 0 {
		s.first, s.last = records[0].number, records[n-1].number
	}
	first, err1 := w.FirstIndex()
	last, err2 := w.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("open %s: %w", s.walDir, err)
	}
	if first != s.first || last != s.last {
		return &backends.DamageError{File: s.walDir, Err: fmt.Errorf("raft-wal finds the records %d to %d, there are %d to %d", first, last, s.first, s.last)}
	}
	// The name of a new tail: raft-wal syncs it with the first batch, but not if it
	// was closed in between.
	return syncPath(s.walDir)
}

func (s *storage) makeSnapDir() error {
	if err := os.Mkdir(s.snapDir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return syncPath(filepath.Dir(s.snapDir)) // also where a life that was killed has made it
}

// replay takes the records in the order in which they were written and returns
// the entries that count.
func (s *storage) replay(records []record, sn *raftpb.Snapshot) ([]*raftpb.Entry, error) {
	s.hs = &raftpb.HardState{}
	s.snap = sn.GetMetadata().GetIndex()
	snapTerm := sn.GetMetadata().GetTerm()
	var ents []*raftpb.Entry
	for _, r := range records {
		if r.hs != nil {
			s.hs = r.hs
		}
		if r.entry == nil {
			continue
		}
		index, term := r.entry.GetIndex(), r.entry.GetTerm()
		if index > s.snap && term < snapTerm {
			continue // the snapshot replaced it
		}
		last := s.log.last()
		if index > last+1 || len(ents) == 0 {
			// Only a snapshot lets the log begin, or go on, there.
			if index > s.snap+1 {
				return nil, &backends.DamageError{File: s.walDir, Err: fmt.Errorf(
					"record %d: entry %d follows %d, and the snapshot is at %d", r.number, index, last, s.snap)}
			}
			s.log, ents = logIndex{}, ents[:0]
		} else if first := ents[0].GetIndex(); index >= first {
			ents = ents[:index-first]
		} else {
			ents = ents[:0]
		}
		s.log.put(index, term, r.number)
		ents = append(ents, r.entry)
	}
	s.log.dropTo(s.snap)
	return ents, nil
}

// timedFS is raft-wal's own file system with a clock at Sync.
type timedFS struct {
	types.VFS
	onSync func(time.Duration) // may be nil
}

func (t timedFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := t.VFS.Create(dir, name, size)
	return t.timed(f), err
}

func (t timedFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := t.VFS.OpenWriter(dir, name)
	return t.timed(f), err
}

func (t timedFS) timed(f types.WritableFile) types.WritableFile {
	if t.onSync == nil || f == nil {
		return f
	}
	return timedFile{f, t.onSync}
}

type timedFile struct {
	types.WritableFile
	onSync func(time.Duration)
}

func (t timedFile) Sync() error { return report(t.onSync, t.WritableFile.Sync) }
