package groups

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/mem"
	"github.com/raftbench/raftbench/node/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// one is the network of one group; it closes what is under it.
type one struct {
	node.Network
	all *Network
}

func (o one) Close() error { return o.all.Close() }

// TestTransport: to a group, its part of the network is a network.
func TestTransport(t *testing.T) {
	for name, opts := range map[string]mem.Options{"mem": {}, "codec": {Codec: true}} {
		t.Run(name, func(t *testing.T) {
			transporttest.Run(t, func(testing.TB) node.Network {
				n := New(mem.New(opts))
				return one{n.Group(7), n}
			})
		})
	}
}

// pipe is a receiver that passes on what it gets.
type pipe struct {
	got   chan *raftpb.Message
	snaps chan raft.SnapshotStatus
	lost  atomic.Int64
}

func newPipe() *pipe {
	return &pipe{got: make(chan *raftpb.Message, 1000), snaps: make(chan raft.SnapshotStatus, 1000)}
}

func (p *pipe) Process(ctx context.Context, m *raftpb.Message) error {
	select {
	case p.got <- m:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
func (p *pipe) ReportUnreachable(uint64)                        { p.lost.Add(1) }
func (p *pipe) ReportSnapshot(_ uint64, st raft.SnapshotStatus) { p.snaps <- st }

func take[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing came within a minute")
		panic("unreachable")
	}
}

func join(t *testing.T, n node.Network, id uint64, r node.Receiver) node.Transport {
	t.Helper()
	tr, err := n.Join(id, r)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func closeAll(t *testing.T, all ...interface{ Close() error }) {
	t.Helper()
	for _, c := range all {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func message(typ raftpb.MessageType, index uint64) *raftpb.Message {
	return &raftpb.Message{Type: typ.Enum(), From: proto.Uint64(1), To: proto.Uint64(2), Index: &index}
}

// TestGroupsAreApart: every group gets its own messages, those that are sent while
// others wait share carriers, and a group that is not there costs the others
// nothing.
func TestGroupsAreApart(t *testing.T) {
	const groups, each = 20, 30
	n := New(mem.New(mem.Options{}))
	var trs []interface{ Close() error }
	var from []node.Transport
	var to []*pipe
	sender := newPipe()
	for g := range uint64(groups) {
		p := newPipe()
		to = append(to, p)
		trs = append(trs, join(t, n.Group(g), 2, p))
		tr := join(t, n.Group(g), 1, sender)
		from, trs = append(from, tr), append(trs, tr)
	}
	absent := join(t, n.Group(99), 1, sender)
	// The flusher is kept waiting, so that all messages gather.
	h := n.hosts[1]
	h.out.Lock()
	for i := range uint64(each) {
		for g, tr := range from {
			e := tr.(*endpoint)
			if !h.put(2, e, message(raftpb.MsgHeartbeat, 1000*uint64(g)+i)) {
				t.Fatal("no room")
			}
		}
		h.put(2, absent.(*endpoint), message(raftpb.MsgHeartbeat, i))
	}
	h.wake.Signal()
	h.out.Unlock()
	for g, p := range to {
		for i := range uint64(each) {
			if m := take(t, p.got); m.GetIndex() != 1000*uint64(g)+i {
				t.Fatalf("group %d got message %d, want %d", g, m.GetIndex(), 1000*uint64(g)+i)
			}
		}
	}
	if st, ok := n.Stats(); !ok || st.Messages != 1 {
		t.Errorf("%d messages took %d carriers, want 1", (groups+1)*each, st.Messages)
	}
	if lost := sender.lost.Load(); lost != 0 {
		t.Errorf("%d reports, want none", lost)
	}
	closeAll(t, append(trs, absent, n)...)
}

// TestSnapshotsWaitForEachOther: groups that send snapshots to one peer at the same
// time each hear how their own ended.
func TestSnapshotsWaitForEachOther(t *testing.T) {
	n := New(mem.New(mem.Options{}))
	a, b, slow, gone := newPipe(), newPipe(), newPipe(), &refuses{newPipe()}
	slow.got = make(chan *raftpb.Message) // until the test takes it
	trs := []interface{ Close() error }{
		join(t, n.Group(1), 2, slow), join(t, n.Group(2), 2, gone),
	}
	fromA, fromB := join(t, n.Group(1), 1, a), join(t, n.Group(2), 1, b)
	fromA.Send([]*raftpb.Message{message(raftpb.MsgSnap, 1)})
	fromB.Send([]*raftpb.Message{message(raftpb.MsgSnap, 2)})
	take(t, slow.got)
	if st := take(t, a.snaps); st != raft.SnapshotFinish {
		t.Errorf("group 1 hears %v, want finish", st)
	}
	if st := take(t, b.snaps); st != raft.SnapshotFailure {
		t.Errorf("group 2, which was refused, hears %v, want failure", st)
	}
	closeAll(t, append(trs, fromA, fromB, n)...)
}

type refuses struct{ *pipe }

func (*refuses) Process(context.Context, *raftpb.Message) error { return context.Canceled }
