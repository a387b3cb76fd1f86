package node_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/mem"
)

// forgetful is a storage that costs nothing, so that only the loop is timed.
type forgetful struct{}

func (forgetful) Save(*raftpb.HardState, []*raftpb.Entry) error { return nil }
func (forgetful) SaveSnap(*raftpb.Snapshot) error               { return nil }
func (forgetful) Sync() error                                   { return nil }
func (forgetful) Release(*raftpb.Snapshot) error                { return nil }
func (forgetful) Close() error                                  { return nil }

// counting is a state machine that says how much it has applied.
type counting struct {
	*node.KV
	applied chan int
}

func (c *counting) Apply(ents []*raftpb.Entry) {
	c.KV.Apply(ents)
	select {
	case c.applied <- len(ents):
	default: // a follower's, whom nobody asks
	}
}

// BenchmarkLoop is what a proposal costs in loop, raft and the mem transport, where
// storage costs nothing: batches of proposals of 1 KiB, each made when the one before
// is applied. One operation is one proposal; with batch=1 it is the latency of the
// whole chain.
func BenchmarkLoop(b *testing.B) {
	for _, nodes := range []int{1, 3} {
		for _, loop := range []node.LoopKind{node.LoopReady, node.LoopAsync} {
			for _, kind := range []node.RaftKind{node.RaftNode, node.RaftRawNode} {
				for _, batch := range []int{1, 256} {
					b.Run(fmt.Sprintf("nodes=%d/loop=%s/raft=%s/batch=%d", nodes, loop, kind, batch), func(b *testing.B) {
						benchmarkLoop(b, nodes, loop, kind, batch)
					})
				}
			}
		}
	}
}

func benchmarkLoop(b *testing.B, nodes int, loop node.LoopKind, kind node.RaftKind, batch int) {
	net := mem.New(mem.Options{})
	peers := make([]uint64, nodes)
	for i := range peers {
		peers[i] = uint64(i + 1)
	}
	var lead *node.Node
	var applied chan int
	for _, id := range peers {
		sm := &counting{KV: node.NewKV(64), applied: make(chan int, batch+1)}
		n, err := node.Start(node.Config{ID: id, Peers: peers, Storage: forgetful{}, State: backends.State{}, StateMachine: sm,
			Network: net, Loop: loop, Raft: kind, SnapshotEntries: 1 << 14, CatchUpEntries: 1 << 10})
		if err != nil {
			b.Fatal(err)
		}
		defer n.Stop()
		if id == 1 {
			lead, applied = n, sm.applied
		}
	}
	for campaigned := false; !lead.Status().IsLeader; time.Sleep(time.Millisecond) {
		if st := lead.Status(); !campaigned && st.Applied >= uint64(nodes) {
			campaigned = lead.Campaign(context.Background()) == nil
		}
	}
	data := make([]byte, 1024)
	payloads := make([][]byte, batch)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%batch != 0 {
			continue
		}
		for i := range payloads {
			payloads[i] = data
		}
		if err := lead.Propose(context.Background(), payloads...); err != nil {
			b.Fatal(err)
		}
		for left := batch; left > 0; {
			left -= <-applied
		}
	}
}
