package node

import (
	"context"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// TestHaveReturned: who is a member by a snapshot is not a removed one, whatever this node
// has seen before; who is none stays removed.
func TestHaveReturned(t *testing.T) {
	n := &Node{}
	remove := func(ids ...uint64) {
		for _, id := range ids {
			n.updateRemoved([]*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: &id}}, &raftpb.ConfState{})
		}
	}
	remove(3, 4, 5, 6, 7)
	n.haveReturned(&raftpb.ConfState{Voters: []uint64{1, 4}, VotersOutgoing: []uint64{1, 5}, Learners: []uint64{6}, LearnersNext: []uint64{7}})
	for id, want := range map[uint64]bool{1: false, 3: true, 4: false, 5: false, 6: false, 7: false} {
		if n.isRemoved(id) != want {
			t.Errorf("node %d is removed: %v", id, !want)
		}
	}
}

// TestRestoreHearsReturned: a node that restores a snapshot hears the members that it
// names, without a change of membership of its own.
func TestRestoreHearsReturned(t *testing.T) {
	h := newHarness(false)
	h.n.removed.Store(&map[uint64]struct{}{4: {}, 5: {}})
	snap := snapshotAt(7)
	snap.Metadata.ConfState = &raftpb.ConfState{Voters: []uint64{1, 4}}
	ap := newApply(raft.Ready{Snapshot: snap})
	ap.notifyc <- struct{}{} // it is durable
	if err := h.n.restore(ap); err != nil {
		t.Fatal(err)
	}
	from := func(id uint64) error {
		m := msg(raftpb.MsgHeartbeat, 1)
		m.From = &id
		return h.n.Process(context.Background(), m)
	}
	if err := from(4); err != nil {
		t.Errorf("a message of a member that returned: %v", err)
	}
	if from(5) == nil {
		t.Error("a message of a removed member was taken")
	}
	sent := h.n.processMessages([]*raftpb.Message{msg(raftpb.MsgHeartbeat, 4), msg(raftpb.MsgHeartbeat, 5)})
	if len(sent) != 1 || sent[0].GetTo() != 4 {
		t.Errorf("%d messages are sent, want the one to the member that returned", len(sent))
	}
}
