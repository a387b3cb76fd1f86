package node

import (
	"context"
	"runtime"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Propose queues payloads to be appended to the log, in order. It blocks only
// while the queue is full, and, with [RaftRawNode], for as long as raft computes;
// where the node stops first it returns [ErrStopped]. A proposal may be lost
// without notice (no leader, a change of leader, a node that stops); who needs to
// know waits for it to be applied. Until then a payload is the node's and must not
// be changed; the log has a copy of its own.
//
// The queue empties into raft's log, which takes all there is while a Save stands:
// it is the caller who bounds what he has under way.
func (n *Node) Propose(ctx context.Context, payloads ...[]byte) error {
	if n.raw == nil || n.lead.Load() == raft.None {
		return n.Enqueue(ctx, payloads...)
	}
	ents, err := n.entriesOf(payloads)
	if err != nil {
		return err
	}
	if err := n.proposals.add(ctx, ents); err != nil {
		return err
	}
	n.proposeNow()
	return nil
}

// Enqueue is Propose for a caller that keeps a schedule: raft computes on a goroutine
// of the node's. To wake that takes longer than to compute, where there is little.
func (n *Node) Enqueue(ctx context.Context, payloads ...[]byte) error {
	ents, err := n.entriesOf(payloads)
	if err != nil {
		return err
	}
	return n.proposals.put(ctx, ents...)
}

// entriesOf makes entries of payloads, unless the node is stopped.
func (n *Node) entriesOf(payloads [][]byte) ([]*raftpb.Entry, error) {
	select {
	case <-n.stopc:
		return nil, ErrStopped
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
	return ents, nil
}

// yieldEvery is how many proposals proposeLoop gives to a [RaftRawNode] before it
// gives way to what waits for its P, timers above all: some 0.1 ms of computing, ten
// times that while the garbage collector sweeps.
const yieldEvery = 64

// proposeLoop gathers the proposals that wait into one MsgProp each time raft is
// ready to take one. While raft handles one, the next gather.
func (n *Node) proposeLoop() {
	defer n.proposals.end() // lost, as any proposal may be; who waits for room is told
	most := n.cfg.MaxBatch
	if n.raw != nil {
		most = min(most, yieldEvery)
	}
	for n.proposals.wait(n.ctx) {
		n.proposing.Lock()
		_, err := n.step(n.proposals.takeNow(), most, func(m *raftpb.Message) (bool, error) {
			err := n.raft.Step(n.ctx, m)
			if n.raw != nil {
				n.othersAsk() // who is late is ready then
				runtime.Gosched()
			}
			return true, err
		})
		n.proposing.Unlock()
		if err != nil {
			return // stopping
		}
		if n.raw != nil {
			n.proposeNow() // what others left to this goroutine
		}
	}
}

// proposeNow gives raft what waits, on the caller's goroutine, which saves waking
// another one. Where somebody is at it already, he takes this too: so proposals
// gather here as they do in proposeLoop. What raft would hold back, for want of a
// leader, is left to proposeLoop.
func (n *Node) proposeNow() {
	for n.proposing.TryLock() {
		left, err := n.step(n.proposals.takeNow(), n.cfg.MaxBatch, func(m *raftpb.Message) (bool, error) {
			return n.raw.tryPropose(m)
		})
		if len(left) > 0 && err == nil {
			n.proposals.putBack(left)
		}
		n.proposing.Unlock()
		// Whoever found the lock taken has added his before; they are seen here.
		if len(left) > 0 || err != nil || n.proposals.empty() {
			return
		}
	}
}

// step proposes entries, most of them at a time, and returns those that propose did
// not take; n.proposing is held.
func (n *Node) step(waiting []*raftpb.Entry, most int, propose func(*raftpb.Message) (taken bool, err error)) ([]*raftpb.Entry, error) {
	for len(waiting) > 0 {
		size := min(len(waiting), most)
		// raft keeps the slice, the queue reuses its own.
		ents := append(make([]*raftpb.Entry, 0, size), waiting[:size]...)
		m := &raftpb.Message{Type: raftpb.MsgProp.Enum(), From: &n.cfg.ID, Entries: ents}
		if taken, err := propose(m); err != nil || !taken {
			return waiting, err
		}
		waiting = waiting[size:]
	}
	return nil, nil
}
