package node

import (
	"context"

	"go.etcd.io/raft/v3/raftpb"
)

// Propose queues payloads to be appended to the log, in order. It blocks only
// while the queue is full. A proposal may be lost without notice (no leader, a
// change of leader); who needs to know waits for it to be applied. The payloads
// become the node's and must not be changed.
func (n *Node) Propose(ctx context.Context, payloads ...[]byte) error {
	select {
	case <-n.stopc:
		return ErrStopped
	default:
	}
	// One allocation for all entries of a call: they are appended together and
	// compacted together.
	slab := make([]raftpb.Entry, len(payloads))
	ents := make([]*raftpb.Entry, len(payloads))
	for i, p := range payloads {
		slab[i].Data = p
		ents[i] = &slab[i]
	}
	return n.proposals.put(ctx, ents...)
}

// proposeLoop gathers the proposals that wait into one MsgProp each time raft is
// ready to take one. While raft handles one, the next gather.
func (n *Node) proposeLoop() {
	for {
		waiting := n.proposals.take(n.ctx)
		if waiting == nil {
			return
		}
		for len(waiting) > 0 {
			size := min(len(waiting), n.cfg.MaxBatch)
			// raft keeps the slice, the queue reuses its own.
			ents := append(make([]*raftpb.Entry, 0, size), waiting[:size]...)
			waiting = waiting[size:]
			m := &raftpb.Message{Type: raftpb.MsgProp.Enum(), From: &n.cfg.ID, Entries: ents}
			if n.raft.Step(n.ctx, m) != nil {
				return // stopping
			}
		}
	}
}
