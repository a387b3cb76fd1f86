package node

import (
	"maps"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// processMessages decides what of a Ready's messages is sent now: nothing to
// removed members, only the last MsgAppResp (it acknowledges all before it), and
// no MsgSnap, which goes its own way. It also notes heartbeats that are late. The
// order stays.
func (n *Node) processMessages(msgs []*raftpb.Message) []*raftpb.Message {
	if len(msgs) == 0 {
		return nil
	}
	send := make([]*raftpb.Message, 0, len(msgs))
	sentAppResp := false
	for _, m := range slices.Backward(msgs) {
		if n.isRemoved(m.GetTo()) {
			continue
		}
		switch m.GetType() {
		case raftpb.MsgAppResp:
			if sentAppResp {
				continue
			}
			sentAppResp = true
		case raftpb.MsgSnap:
			n.redirectSnapshot(m)
			continue
		case raftpb.MsgHeartbeat:
			n.observeHeartbeat(m.GetTo())
		}
		send = append(send, m)
	}
	slices.Reverse(send)
	return send
}

func (n *Node) redirectSnapshot(m *raftpb.Message) {
	select {
	case n.msgSnapc <- m:
	default:
		// Too many wait already. Raft must hear of it, or it would wait for this
		// one for ever.
		n.raft.ReportSnapshot(m.GetTo(), raft.SnapshotFailure)
	}
}

func (n *Node) observeHeartbeat(to uint64) {
	if ok, exceeded := n.heartbeat.Observe(to); !ok {
		n.lateHeartbeats.Add(1)
		n.cfg.Logger.Warn("heartbeat is late; the disk or the CPU is overloaded",
			"node", n.cfg.ID, "to", to, "interval", n.cfg.Tick, "exceeded", exceeded)
	}
}

func (n *Node) isRemoved(id uint64) bool {
	removed := n.removed.Load()
	if removed == nil {
		return false
	}
	_, ok := (*removed)[id]
	return ok
}

// updateRemoved notes who left and who came back. It is not stored: after a
// restart raft itself no longer sends to who is not in its configuration.
func (n *Node) updateRemoved(changes []*raftpb.ConfChangeSingle, cs *raftpb.ConfState) {
	next := n.copyRemoved()
	for _, c := range changes {
		if c.GetType() == raftpb.ConfChangeRemoveNode && !slices.Contains(cs.GetVotersOutgoing(), c.GetNodeId()) {
			next[c.GetNodeId()] = struct{}{}
		} else {
			delete(next, c.GetNodeId())
		}
	}
	n.removed.Store(&next)
}

// haveReturned notes who is a member by a snapshot, whose changes of membership this node
// has not seen.
func (n *Node) haveReturned(cs *raftpb.ConfState) {
	next := n.copyRemoved()
	for _, id := range slices.Concat(cs.GetVoters(), cs.GetVotersOutgoing(), cs.GetLearners(), cs.GetLearnersNext()) {
		delete(next, id)
	}
	n.removed.Store(&next)
}

func (n *Node) copyRemoved() map[uint64]struct{} {
	next := map[uint64]struct{}{}
	if old := n.removed.Load(); old != nil {
		maps.Copy(next, *old)
	}
	return next
}
