package mem

import (
	"context"
	"fmt"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"

	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipe is a receiver that passes on what it gets.
type pipe chan *raftpb.Message

func (p pipe) Process(ctx context.Context, m *raftpb.Message) error {
	select {
	case p <- m:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
func (p pipe) ReportUnreachable(uint64)                   {}
func (p pipe) ReportSnapshot(uint64, raft.SnapshotStatus) {}

// A proposal that the receiver holds back must not hold back votes.
func TestProposalsHaveTheirOwnLane(t *testing.T) {
	n := New(Options{})
	held := make(chan struct{})
	r := &holdsProposals{pipe: make(pipe), held: held}
	from, err := n.Join(1, make(pipe))
	if err != nil {
		t.Fatal(err)
	}
	to, err := n.Join(2, r)
	if err != nil {
		t.Fatal(err)
	}
	from.Send([]*raftpb.Message{{Type: raftpb.MsgProp.Enum(), To: new(uint64(2))}})
	<-held
	from.Send([]*raftpb.Message{{Type: raftpb.MsgVote.Enum(), To: new(uint64(2))}})
	if m := <-r.pipe; m.GetType() != raftpb.MsgVote {
		t.Fatalf("got %v", m)
	}
	for _, tr := range []interface{ Close() error }{from, to, n} {
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

type holdsProposals struct {
	pipe
	held chan struct{}
}

func (h *holdsProposals) Process(ctx context.Context, m *raftpb.Message) error {
	if m.GetType() == raftpb.MsgProp {
		close(h.held)
		<-ctx.Done()
		return ctx.Err()
	}
	return h.pipe.Process(ctx, m)
}

func TestJoinRefuses(t *testing.T) {
	n := New(Options{})
	if _, err := n.Join(0, make(pipe)); err == nil {
		t.Error("id 0 was let in")
	}
	a, err := n.Join(1, make(pipe))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Join(1, make(pipe)); err == nil {
		t.Error("an id was let in twice")
	}
	if err := n.Close(); err == nil {
		t.Error("closing a network with an open transport is no error")
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if _, err := n.Join(1, make(pipe)); err == nil {
		t.Error("a closed network let a node in")
	}
}

func TestTransport(t *testing.T) {
	for name, opts := range map[string]Options{"shared": {}, "codec": {Codec: true}} {
		t.Run(name, func(t *testing.T) {
			transporttest.Run(t, func(testing.TB) node.Network { return New(opts) })
		})
	}
}

func BenchmarkTransport(b *testing.B) {
	for _, codec := range []bool{false, true} {
		b.Run(fmt.Sprintf("codec=%t", codec), func(b *testing.B) {
			transporttest.Bench(b, func(testing.TB) node.Network { return New(Options{Codec: codec}) })
		})
	}
}
