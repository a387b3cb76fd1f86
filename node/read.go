package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"go.etcd.io/raft/v3"
)

// readRetry is how long a read index may take before it is asked for again
// (etcd's readIndexRetryTime).
const readRetry = 500 * time.Millisecond

// ReadIndex calls done once a read of the state machine would be linearizable
// with this call: a majority confirmed the leader after the call, and what was
// committed then is applied here. done runs on the node's goroutine and gets
// [ErrStopped] if the node stops first, by itself too; it is called once, unless
// ReadIndex returns an error. Reads that wait share one round.
func (n *Node) ReadIndex(ctx context.Context, done func(error)) error {
	select {
	case <-n.stopc:
		return ErrStopped
	default:
	}
	return n.reads.put(ctx, done)
}

// readLoop serves all reads that wait with one read index, as etcd does.
func (n *Node) readLoop() {
	defer func() {
		for _, done := range n.reads.end() {
			done(ErrStopped)
		}
	}()
	// Requests of an earlier life of this node may still be under way, and an answer
	// to one of them, taken for that to one of this life's, would allow a read of
	// what was committed back then. So no two lives count from the same number (as
	// etcd's idutil sees to).
	id := rand.Uint64()
	for {
		waiting := n.reads.take(n.ctx)
		if waiting == nil {
			return
		}
		id++
		var err error
		if index, ok := n.readIndex(id); !ok || !n.applied.wait(index) {
			err = ErrStopped
		}
		for _, done := range waiting {
			done(err)
		}
	}
}

// readIndex asks raft for a read index until it answers; false means stopping.
func (n *Node) readIndex(id uint64) (uint64, bool) {
	// The node's id keeps requests of different nodes apart on the leader.
	rctx := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, n.cfg.ID), id)
	retry := time.NewTicker(readRetry)
	defer retry.Stop()
	for {
		if n.raft.ReadIndex(n.ctx, rctx) != nil {
			return 0, false
		}
		index, answered, stopping := n.awaitReadState(rctx, retry.C)
		if stopping {
			return 0, false
		}
		if answered {
			return index, true
		}
	}
}

func (n *Node) awaitReadState(rctx []byte, retry <-chan time.Time) (index uint64, answered, stopping bool) {
	for {
		var rs raft.ReadState
		select {
		case rs = <-n.readStatec:
		case <-retry:
			return 0, false, false
		case <-n.stopc:
			return 0, false, true
		}
		if bytes.Equal(rs.RequestCtx, rctx) {
			return rs.Index, true, false
		}
		// The answer to a request that was asked again: too old, but harmless.
	}
}
