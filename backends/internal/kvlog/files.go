package kvlog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/internal/snapfile"
)

// SnapshotParam is the setting that decides where the Data of new snapshots goes. A
// backend under this package lists it among its own.
var SnapshotParam = backends.Param{
	Name: "snapshot", Default: "file",
	Meaning: "where the data of a new snapshot goes: file (a file beside the store, which only names it, as hashicorp/raft has it) or engine (chunks in the store itself); what is there is read either way",
}

// SnapshotFiles is whether [SnapshotParam] asks for files.
func SnapshotFiles(p *backends.Settings) bool {
	return p.Choice(SnapshotParam.Name, "engine", "file") == "file"
}

// SnapDir is where an engine in dir has the files of its snapshots.
func SnapDir(dir string) string { return filepath.Join(dir, "snap") }

// makeDir makes a directory within one that exists. Its name is durable when it
// returns, also where the directory was there: another may have made it just now, or
// a process that was killed.
func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make a directory for snapshots: %w", err)
	}
	return SyncPath(filepath.Dir(dir))
}

// settleFiles is the end of Open: the current snapshot's file is durable under its
// name, no other is there, and there is a directory for the next.
func (s *Storage) settleFiles() error {
	dir, meta := s.cfg.SnapDir, &raftpb.SnapshotMetadata{}
	if s.current.inFile {
		meta = s.current.metadata
	}
	if s.cfg.SnapFiles {
		if err := makeDir(dir); err != nil {
			return err
		}
	}
	if err := snapfile.Keep(dir, meta.GetTerm(), meta.GetIndex()); err != nil {
		return err
	}
	if !s.current.inFile {
		return nil
	}
	// It may have replaced itself just before its process was killed.
	return SyncPath(dir)
}

// readFile is the current snapshot, in memory.
func (s *Storage) readFile(r snapRecord) (*raftpb.Snapshot, error) {
	return snapfile.Read(s.cfg.SnapDir, r.metadata.GetTerm(), r.metadata.GetIndex())
}

// newFile is the record of a snapshot whose Data is in a file; snapMu is held. It has
// a generation because the next one must be new, whatever the next snapshot is.
func (s *Storage) newFile(meta *raftpb.SnapshotMetadata) snapRecord {
	s.lastGen++
	return snapRecord{gen: s.lastGen, inFile: true, metadata: meta}
}

// saveFile is SaveSnap with a file; snapMu is held.
func (s *Storage) saveFile(snap *raftpb.Snapshot) error {
	err := s.room(int64(len(snap.Data)))
	if err == nil {
		err = snapfile.Save(s.cfg.SnapDir, snap)
	}
	if err != nil {
		return s.failFile(snap.GetMetadata(), err)
	}
	return s.makeCurrent(s.newFile(snap.GetMetadata()))
}

// stageFile is StageSnap with a file.
func (s *Storage) stageFile(meta *raftpb.SnapshotMetadata, size int64, data io.Reader) (backends.StagedSnap, error) {
	if err := s.room(size); err != nil {
		return nil, s.failFile(meta, err)
	}
	f, err := snapfile.Stage(s.cfg.SnapDir, meta, size, data)
	if snapfile.DiskFailed(err) {
		return nil, s.failFile(meta, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: stage a snapshot: %w", s.dir, err)
	}
	s.snapMu.Lock()
	defer s.snapMu.Unlock()
	return &staged{s, s.newFile(meta), f}, nil
}

// openFile is OpenSnap of a file.
func (s *Storage) openFile(r snapRecord) (io.ReadCloser, int64, error) {
	data, size, err := snapfile.Open(s.cfg.SnapDir, r.metadata)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", s.dir, err)
	}
	return data, size, nil
}

// dropFile removes the file of a snapshot that is not current, unless the current one
// has the same; snapMu is held.
func (s *Storage) dropFile(r snapRecord) error {
	if s.current.inFile && s.current.is(r.metadata) {
		return nil
	}
	if err := snapfile.Remove(s.cfg.SnapDir, r.metadata.GetTerm(), r.metadata.GetIndex()); err != nil {
		return s.failFile(r.metadata, err)
	}
	return nil
}

func (s *Storage) room(bytes int64) error {
	if s.cfg.Room == nil {
		return nil
	}
	return s.cfg.Room(bytes)
}

// failFile ends the storage for an error of the disk that was met beside the engine.
func (s *Storage) failFile(meta *raftpb.SnapshotMetadata, err error) error {
	err = s.fail(fmt.Errorf("%s: snapshot %d: %w", s.dir, meta.GetIndex(), err))
	if s.cfg.failed != nil {
		s.cfg.failed(err)
	}
	return err
}
