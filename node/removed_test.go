package node

import (
	"testing"

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
