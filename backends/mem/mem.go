// Package mem is the harness ceiling: a backend that keeps nothing.
//
// Under mem a raft loop spends its time on everything but storage, so no other
// backend can be faster in the same harness; a result that comes near to mem's
// measures the harness, not the backend. It is marked [backends.None] and is
// never ranked with backends that keep what they acknowledge.
//
// It honours the rules of the storage contract that cost nothing: a second Open
// of a live directory and a call after Close are errors, and so is an unknown
// parameter. What it saved is gone with Close, or earlier: Open always returns
// an empty state, and never reads or writes the directory. Only the newest snapshot
// is kept, in memory and until Close, because a follower that lags asks for it.
package mem

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
)

// Backend is the engine "mem".
var Backend = backends.Backend{
	Name:       "mem",
	Doc:        "keeps nothing: the ceiling of the harness, not a storage engine",
	Durability: backends.None,
	Open:       open,
}

// live holds the directories of the open storages of this process. Another
// process may open the same directory: nothing is there that it could harm.
var live sync.Map // absolute path → struct{}

// storage is called by the loop and the apply side at the same time.
type storage struct {
	dir    string
	closed atomic.Bool

	mu     sync.Mutex
	newest *kept    // snapshot, nil if there was none
	spare  [][]byte // chunks of one that was replaced
}

func open(opts backends.Options) (backends.Storage, backends.State, error) {
	if err := backends.NewSettings("mem", nil, opts.Params).Err(); err != nil {
		return nil, backends.State{}, err
	}
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, backends.State{}, fmt.Errorf("mem: find directory %s: %w", opts.Dir, err)
	}
	if _, locked := live.LoadOrStore(dir, struct{}{}); locked {
		return nil, backends.State{}, fmt.Errorf("mem: %s: %w", dir, backends.ErrLocked)
	}
	return &storage{dir: dir}, backends.State{HardState: &raftpb.HardState{}}, nil
}

// Save implements [backends.Storage]; it drops what it is given.
func (s *storage) Save(*raftpb.HardState, []*raftpb.Entry) error { return s.err() }

// Sync implements [backends.Storage]; there is nothing to sync.
func (s *storage) Sync() error { return s.err() }

// Release implements [backends.Storage]; there is nothing to free.
func (s *storage) Release(*raftpb.Snapshot) error { return s.err() }

// Close implements [backends.Storage]; it lets the directory be opened again.
func (s *storage) Close() error {
	if s.closed.Swap(true) {
		return backends.ErrClosed
	}
	live.Delete(s.dir)
	return nil
}

func (s *storage) err() error {
	if s.closed.Load() {
		return backends.ErrClosed
	}
	return nil
}
