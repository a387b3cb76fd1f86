package backends

import (
	"io"

	"go.etcd.io/raft/v3/raftpb"
)

// SnapshotStreamer is implemented by a Storage that takes the Data of a snapshot
// from a stream and gives it back as one, so that a state of a gigabyte is never
// in memory as one slice. It is optional: a node whose storage lacks it calls
// SaveSnap, and both ways may be used in turns on one storage.
//
// What is staged and then saved is for every other method, and for a later Open,
// as if SaveSnap had been called with all of Data.
type SnapshotStreamer interface {
	// StageSnap reads size bytes from data, which must end there, and makes them
	// durable beside what is stored. Nothing is replaced yet: what Open returns
	// after a crash is what it would have returned without, and the staged bytes
	// are gone. All other methods may be called while StageSnap waits for data.
	//
	// An error of data, or data of another length, is returned wrapped and leaves
	// the storage as it was. An error of the disk is one of SaveSnap: nothing is
	// acknowledged any more. meta is not kept after the snapshot is saved or
	// discarded.
	StageSnap(meta *raftpb.SnapshotMetadata, size int64, data io.Reader) (StagedSnap, error)
	// OpenSnap reads the Data of a saved snapshot, whose size it returns too. The
	// caller closes it, before Close of the storage. Release of a later snapshot
	// does not disturb what is open. Where the bytes are not those that were
	// saved, Read returns an error, a *[DamageError] where the file is known, in
	// place of io.EOF or before.
	OpenSnap(meta *raftpb.SnapshotMetadata) (data io.ReadCloser, size int64, err error)
}

// StagedSnap is a snapshot whose Data is on disk, but not part of the storage.
// One of its methods is called, once, before Close of the storage.
type StagedSnap interface {
	// Save is SaveSnap, for what was staged.
	Save() error
	// Discard gives the space back.
	Discard() error
}
