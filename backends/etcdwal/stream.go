package etcdwal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/internal/snapfile"
)

var _ backends.SnapshotStreamer = (*storage)(nil)

// inFile is what a snapshot of etcd's snapshotter has in place of Data that is in
// a file under Dir/db. Data that looks like it is kept in such a file itself, so
// that there are no two meanings.
var inFile = []byte("raftbench: the data of this snapshot is in ../db\n")

// saveInFile is SaveSnap by way of a file.
func (s *storage) saveInFile(sn *raftpb.Snapshot) error {
	staged, err := s.StageSnap(sn.GetMetadata(), int64(len(sn.GetData())), bytes.NewReader(sn.GetData()))
	if err != nil {
		return err
	}
	return staged.Save()
}

// StageSnap implements [backends.SnapshotStreamer].
func (s *storage) StageSnap(meta *raftpb.SnapshotMetadata, size int64, data io.Reader) (backends.StagedSnap, error) {
	if err := s.failure(); err != nil {
		return nil, err
	}
	if err := s.makeDBDir(); err != nil {
		return nil, s.do("stage a snapshot", func() error { return err })
	}
	f, err := snapfile.Stage(s.dbDir, meta, size, data)
	if snapfile.DiskFailed(err) {
		return nil, s.do("stage a snapshot", func() error { return err })
	}
	if err != nil {
		return nil, fmt.Errorf("etcd-wal: stage a snapshot: %w", err)
	}
	return snapfile.Snap{File: f, Failure: s.failure, Saved: func(err error) error { return s.fileSaved(meta, err) }}, nil
}

// fileSaved writes etcd's snapshot, and then the WAL's record, for Data whose file
// has its name: nothing names what is not there.
func (s *storage) fileSaved(meta *raftpb.SnapshotMetadata, err error) error {
	if err != nil {
		return s.do("save snapshot", func() error { return err })
	}
	return s.saveSnap(&raftpb.Snapshot{Metadata: meta, Data: inFile})
}

func (s *storage) makeDBDir() error {
	err := os.Mkdir(s.dbDir, fileutil.PrivateDirMode)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(s.dbDir)) // also where another call has just made it
}

// OpenSnap implements [backends.SnapshotStreamer].
func (s *storage) OpenSnap(meta *raftpb.SnapshotMetadata) (io.ReadCloser, int64, error) {
	if err := s.failure(); err != nil {
		return nil, 0, err
	}
	path := snapshotPath(s.snapDir, meta.GetTerm(), meta.GetIndex())
	sn, err := snap.Read(logger, path)
	if err != nil {
		return nil, 0, fmt.Errorf("etcd-wal: read %s: %w", path, err)
	}
	if !bytes.Equal(sn.GetData(), inFile) {
		return io.NopCloser(bytes.NewReader(sn.GetData())), int64(len(sn.GetData())), nil
	}
	data, size, err := snapfile.Open(s.dbDir, meta)
	if err != nil {
		return nil, 0, fmt.Errorf("etcd-wal: %w", err)
	}
	return data, size, nil
}

// readFile is a streamed snapshot in memory.
func (s *storage) readFile(term, index uint64) (*raftpb.Snapshot, error) {
	return snapfile.Read(s.dbDir, term, index)
}

// cleanFiles removes what a crash left half-written.
func (s *storage) cleanFiles() error {
	if _, err := os.Stat(s.dbDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return snapfile.Clean(s.dbDir)
}

// releaseFiles removes the Data of snapshots below index.
func (s *storage) releaseFiles(index uint64) error {
	if _, err := os.Stat(s.dbDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return snapfile.Release(s.dbDir, index)
}
