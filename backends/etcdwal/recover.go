package etcdwal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

// recover opens or creates the WAL.
//
// The directory of the snapshots is made after the WAL is complete and durable,
// so that a WAL that is missing beside it is damage, and not a crash during
// creation.
func (s *storage) recover(segmentBytes int64) (backends.State, error) {
	if !wal.Exist(s.walDir) {
		return s.create(segmentBytes)
	}
	if err := s.makeSnapDir(); err != nil {
		return backends.State{}, err
	}
	if err := errors.Join(removeUnfinished(s.walDir), s.cleanFiles()); err != nil {
		return backends.State{}, err
	}
	segments, err := s.segments()
	if err != nil {
		return backends.State{}, err
	}
	found, err := scan(segments)
	if err != nil {
		return backends.State{}, err
	}
	if size := preallocated(found.metadata); size > 0 && size != segmentBytes {
		return backends.State{}, &backends.ParamError{Backend: name, Reason: fmt.Sprintf(
			"segment: %s was made with %d bytes, not %d", s.walDir, size, segmentBytes)}
	}
	newest, sn, err := s.newestSnapshot(segments, found.snapshots)
	if err != nil {
		return backends.State{}, err
	}
	if err := found.repair(segments[len(segments)-1]); err != nil {
		return backends.State{}, err
	}
	hs, ents, err := s.readAll(newest)
	if err != nil {
		return backends.State{}, err
	}
	state, err := backends.Recover(s.walDir, hs, sn, ents)
	if err == nil {
		err = s.writeHead(newest, state.HardState)
	}
	if err != nil {
		s.w.Close()
		return backends.State{}, err
	}
	return state, nil
}

func (s *storage) create(segmentBytes int64) (backends.State, error) {
	if _, err := os.Stat(s.snapDir); err == nil {
		return backends.State{}, &backends.DamageError{File: s.walDir, Err: errors.New("no segment is left of a log that was there")}
	}
	w, err := wal.Create(logger, s.walDir, metadataFor(segmentBytes))
	if err != nil {
		return backends.State{}, fmt.Errorf("create %s: %w", s.walDir, err)
	}
	s.w = w
	// The name of the first segment; wal.Create synced only that of its directory.
	err = syncDir(s.walDir)
	if err == nil {
		err = s.makeSnapDir()
	}
	if err != nil {
		w.Close()
		return backends.State{}, fmt.Errorf("create %s: %w", s.walDir, err)
	}
	return backends.State{HardState: &raftpb.HardState{}}, nil
}

func (s *storage) makeSnapDir() error {
	if err := os.Mkdir(s.snapDir, fileutil.PrivateDirMode); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(s.snapDir)) // also where a life that was killed has made it
}

// removeUnfinished deletes the segments that were being prepared. The WAL would
// use them again, remains of an interrupted cut included.
func removeUnfinished(dir string) error {
	names, err := fileutil.ReadDir(dir, fileutil.WithExt(".tmp"))
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("remove an unfinished segment: %w", err)
		}
	}
	return nil
}

// segments are those of the log, without what a power cut brought back of those
// that Release deleted: it may undo some deletions and not others.
func (s *storage) segments() ([]segment, error) {
	all, err := listSegments(s.walDir)
	if err != nil {
		return nil, err
	}
	first := len(all) - 1
	for first > 0 && all[first-1].seq == all[first].seq-1 {
		first--
	}
	return all[first:], nil
}

// newestSnapshot finds the newest snapshot that the WAL names, in the WAL and in
// its file; an empty one and nil if there is none.
func (s *storage) newestSnapshot(segments []segment, named []*walpb.Snapshot) (*walpb.Snapshot, *raftpb.Snapshot, error) {
	newest := &walpb.Snapshot{}
	for _, n := range named {
		if n.GetIndex() >= newest.GetIndex() {
			newest = n
		}
	}
	if holding(segments, newest.GetIndex()) < 0 {
		return nil, nil, &backends.DamageError{File: s.walDir, Err: fmt.Errorf(
			"the log begins with %s, behind the newest snapshot (index %d)", filepath.Base(segments[0].path), newest.GetIndex())}
	}
	if newest.GetIndex() == 0 {
		return newest, nil, nil
	}
	path := snapshotPath(s.snapDir, newest.GetTerm(), newest.GetIndex())
	sn, err := snap.Read(logger, path)
	if err == nil && (sn.GetMetadata().GetIndex() != newest.GetIndex() || sn.GetMetadata().GetTerm() != newest.GetTerm()) {
		err = errors.New("the file holds another snapshot")
	}
	if err != nil {
		return nil, nil, &backends.DamageError{File: path, Err: err}
	}
	if bytes.Equal(sn.GetData(), inFile) {
		if sn, err = s.readFile(newest.GetTerm(), newest.GetIndex()); err != nil {
			return nil, nil, err
		}
	}
	return newest, sn, nil
}

// readAll opens the WAL for appending.
func (s *storage) readAll(from *walpb.Snapshot) (*raftpb.HardState, []*raftpb.Entry, error) {
	w, err := wal.Open(logger, s.walDir, from)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, nil, fmt.Errorf("%s: %w", s.walDir, backends.ErrLocked)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", s.walDir, err)
	}
	_, hs, ents, err := w.ReadAll()
	if err != nil {
		w.Close()
		return nil, nil, &backends.DamageError{File: s.walDir, Err: err}
	}
	s.w = w
	return hs, ents, nil
}

// writeHead makes durable what was found, because raft acts on what Open returns,
// and a process that was killed may have written it and not synced it.
//
// It also tells the WAL what it must know and does not learn from reading. The
// hard state it repeats at the head of later segments, and the snapshot says
// where the log is: the next segment is named after it, and would claim to begin
// before the snapshot if the last entry that was read lies there.
func (s *storage) writeHead(newest *walpb.Snapshot, hs *raftpb.HardState) error {
	if newest.GetIndex() > 0 {
		if newest.ConfState == nil {
			newest.ConfState = &raftpb.ConfState{}
		}
		if err := s.w.SaveSnapshot(newest); err != nil {
			return fmt.Errorf("%s: %w", s.walDir, err)
		}
	}
	err := s.w.Save(proto.Clone(hs).(*raftpb.HardState), nil)
	if err == nil {
		err = s.w.Sync()
	}
	if err == nil {
		err = syncDir(s.walDir)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.walDir, err)
	}
	return nil
}
