package node

import (
	"io"

	"go.etcd.io/raft/v3/raftpb"
)

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

// StreamingStateMachine is a StateMachine whose encoded state need not be in
// memory as one slice. It is optional. The bytes are those of Snapshot: what one
// way wrote, the other restores.
type StreamingStateMachine interface {
	StateMachine
	// StreamSnapshot captures the state as of the last Apply, quickly, and
	// returns a reader that encodes it, and how many bytes it will give. It is
	// read on another goroutine while Apply goes on.
	StreamSnapshot() (data io.Reader, size int64)
	// RestoreStream replaces the state by an encoded one of size bytes, which it
	// reads to its end. It may give up the old state first, so that the two are
	// not in memory at a time: after an error there is no state, and the node
	// stops.
	RestoreStream(data io.Reader, size int64) error
}
