package node

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// handleReadyAsync is the loop's step under AsyncStorageWrites: raft does not
// wait for the disk. It addresses messages to a local append thread and a local
// apply thread, and goes on; their responses come back as messages.
//
// A leader's own entries are acknowledged like a follower's, by a message that
// its append thread sends after the Save, and only durable entries are applied.
func (n *Node) handleReadyAsync(rd raft.Ready) error {
	n.observe(rd)
	peers := make([]*raftpb.Message, 0, len(rd.Messages))
	for _, m := range rd.Messages {
		switch m.GetTo() {
		case raft.LocalAppendThread:
			if n.appends.put(n.ctx, m) != nil {
				return nil // stopping
			}
		case raft.LocalApplyThread:
			if !n.handOver(newAsyncApply(m)) {
				return nil
			}
		default:
			peers = append(peers, m)
		}
	}
	n.transport.Send(n.processMessages(peers))
	return nil
}

// appendLoop is the append thread: all appends that wait share one Save, and are
// acknowledged after it.
func (n *Node) appendLoop() {
	for {
		waiting := n.appends.take(n.ctx)
		if waiting == nil {
			return
		}
		for len(waiting) > 0 {
			var g appendGroup
			waiting = g.gather(waiting)
			if err := n.saveGroup(&g); err != nil {
				n.fail(err)
				return
			}
		}
	}
}

// appendGroup is what one Save makes durable.
type appendGroup struct {
	hardState *raftpb.HardState
	entries   []*raftpb.Entry
	snapshot  *raftpb.Snapshot
	responses []*raftpb.Message
}

// gather adds messages up to the next one that carries a snapshot, which begins
// a group of its own, and returns the rest.
//
// An append that overwrites the tail of an earlier one in the same group replaces
// it here, as it would on disk. The responses to the earlier one are still sent:
// they are sent after the later one is durable too, so what they claim was true
// of a state that this node can no longer go back to.
func (g *appendGroup) gather(msgs []*raftpb.Message) (rest []*raftpb.Message) {
	for i, m := range msgs {
		if i > 0 && !raft.IsEmptySnap(m.GetSnapshot()) {
			return msgs[i:]
		}
		if !raft.IsEmptySnap(m.GetSnapshot()) {
			g.snapshot = m.GetSnapshot()
		}
		if m.Term != nil || m.Vote != nil || m.Commit != nil {
			g.hardState = &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
		}
		g.append(m.GetEntries())
		g.responses = append(g.responses, m.GetResponses()...)
	}
	return nil
}

func (g *appendGroup) append(ents []*raftpb.Entry) {
	if len(ents) == 0 {
		return
	}
	if len(g.entries) == 0 {
		g.entries = ents[:len(ents):len(ents)] // raft's own slice: never append in place
		return
	}
	first, from := g.entries[0].GetIndex(), ents[0].GetIndex()
	keep := 0
	if from > first {
		keep = min(int(from-first), len(g.entries))
	}
	g.entries = append(g.entries[:keep:keep], ents...)
}

func (n *Node) saveGroup(g *appendGroup) error {
	var notifyc chan struct{}
	if !raft.IsEmptySnap(g.snapshot) {
		notifyc = make(chan struct{}, 2) // two signals: that it is durable, and that all is
		// Before it is durable, as in the other loop: the state machine restores as soon
		// as it is, while the log below it is dropped, which may take long. Entries after
		// the snapshot are handed over only after raft got the responses below, so the
		// apply side sees the snapshot first.
		if !n.handOver(apply{snapshot: g.snapshot, notifyc: notifyc}) {
			return nil
		}
	}
	if err := n.persist(g.hardState, g.entries, g.snapshot, notifyc); err != nil {
		return err
	}
	if notifyc != nil {
		notifyc <- struct{}{}
	}
	peers := g.responses[:0:0]
	for _, m := range g.responses {
		if m.GetTo() != n.cfg.ID {
			peers = append(peers, m)
		}
	}
	n.transport.Send(n.processMessages(peers))
	for _, m := range g.responses {
		if m.GetTo() == n.cfg.ID && n.raft.Step(n.ctx, m) != nil {
			return nil // stopping
		}
	}
	return nil
}
