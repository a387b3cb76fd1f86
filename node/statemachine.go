package node

import "go.etcd.io/raft/v3/raftpb"

// StateMachine is what committed entries act on. Its methods are called by the
// apply side, one at a time.
type StateMachine interface {
	// Apply applies normal entries with data, in log order. The entries are
	// shared and immutable; the state machine may keep them.
	Apply(ents []*raftpb.Entry)
	// Snapshot captures the state as of the last Apply, quickly, and returns the
	// function that encodes it. The function runs on another goroutine while
	// Apply goes on.
	Snapshot() func() ([]byte, error)
	// Restore replaces the state by an encoded one. It may keep data, which is
	// immutable.
	Restore(data []byte) error
}
