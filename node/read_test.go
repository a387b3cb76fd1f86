package node_test

import (
	"context"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/node"
)

// requests passes on the contexts of the read requests that nodes send.
type requests struct {
	node.Network
	seen chan []byte
}

func (r *requests) Join(id uint64, recv node.Receiver) (node.Transport, error) {
	t, err := r.Network.Join(id, recv)
	return &requestsOf{t, r.seen}, err
}

type requestsOf struct {
	node.Transport
	seen chan []byte
}

func (r *requestsOf) Send(msgs []*raftpb.Message) {
	for _, m := range msgs {
		if m.GetType() == raftpb.MsgReadIndex {
			r.seen <- m.GetEntries()[0].GetData()
		}
	}
	r.Transport.Send(msgs)
}

// TestReadRequestsOfTwoLives: a follower's first read request must not look like
// the first one of its life before, whose answer may be late.
func TestReadRequestsOfTwoLives(t *testing.T) {
	g := newGroup(t, drive{}, 3)
	seen := make(chan []byte, 1000)
	g.net = &requests{g.net, seen}
	follower := g.leader().Status().ID%3 + 1
	used := map[string]int{}
	for life := range 2 {
		g.stop(follower)
		for len(seen) > 0 {
			<-seen // asked again by the life that ended
		}
		g.start(follower, false)
		n := g.nodes[follower]
		g.until("the follower knows a leader", func() bool { st := n.Status(); return st.HasLeader && !st.IsLeader })
		if err := n.ReadIndex(context.Background(), func(error) {}); err != nil {
			t.Fatal(err)
		}
		select {
		case request := <-seen:
			if before, twice := used[string(request)]; twice {
				t.Fatalf("lives %d and %d asked with the same context %x", before, life, request)
			}
			used[string(request)] = life
		case <-time.After(time.Minute):
			t.Fatal("no request within a minute")
		}
	}
}
