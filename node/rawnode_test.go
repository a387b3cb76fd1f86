package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// driven is raft with its in-memory log, and what a loop does with it.
type driven struct {
	t    *testing.T
	raft raft.Node
	raw  *rawNode // nil for raft.Node
	log  *raft.MemoryStorage
}

func drivenConfig(log *raft.MemoryStorage) *raft.Config {
	return &raft.Config{ID: 1, ElectionTick: 10, HeartbeatTick: 1, Storage: log, MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 16,
		Logger: raftLogger{slog.New(slog.DiscardHandler)}}
}

func startDriven(t *testing.T, kind RaftKind, voters ...uint64) *driven {
	t.Helper()
	d := &driven{t: t, log: raft.NewMemoryStorage()}
	var peers []raft.Peer
	for _, id := range voters {
		peers = append(peers, raft.Peer{ID: id})
	}
	if kind == RaftNode {
		d.raft = raft.StartNode(drivenConfig(d.log), peers)
	} else {
		raw, err := startRawNode(drivenConfig(d.log), peers)
		if err != nil {
			t.Fatal(err)
		}
		d.raft, d.raw = raw, raw
	}
	t.Cleanup(d.raft.Stop)
	return d
}

// ready is the next Ready. raft.Node may hand one out before it has taken all that was
// sent to it; it is asked for its status first, which comes after those.
func (d *driven) ready() raft.Ready {
	d.t.Helper()
	d.raft.Status()
	if d.raw == nil {
		return <-d.raft.Ready()
	}
	<-d.raw.readied
	rd, ok := d.raw.take()
	if !ok {
		d.t.Fatal("a Ready was announced that is not there")
	}
	return rd
}

// handle takes one Ready to its end, applies changes of membership, and returns it.
func (d *driven) handle() raft.Ready {
	d.t.Helper()
	rd := d.ready()
	if err := d.log.Append(rd.Entries); err != nil {
		d.t.Fatal(err)
	}
	for _, e := range rd.CommittedEntries {
		if e.GetType() != raftpb.EntryNormal {
			cc, err := confChangeOf(e)
			if err != nil {
				d.t.Fatal(err)
			}
			d.raft.ApplyConfChange(cc)
		}
	}
	d.raft.Advance()
	return rd
}

func (d *driven) step(m *raftpb.Message) {
	d.t.Helper()
	if err := d.raft.Step(context.Background(), m); err != nil {
		d.t.Fatal(err)
	}
}

func describeReady(rd raft.Ready) string {
	var b strings.Builder
	if rd.SoftState != nil {
		fmt.Fprintf(&b, "lead=%d role=%v ", rd.Lead, rd.RaftState)
	}
	fmt.Fprintf(&b, "hs=%v sync=%v entries=%v committed=%v msgs=%v reads=%v", rd.HardState, rd.MustSync, rd.Entries, rd.CommittedEntries, rd.Messages, rd.ReadStates)
	return strings.Join(strings.Fields(b.String()), " ") // prototext varies its spaces
}

// lead makes the node of three leader, and returns what its Readys were.
func (d *driven) lead() (out []string) {
	d.t.Helper()
	add := func() { out = append(out, describeReady(d.handle())) }
	add() // the changes of membership that the cluster begins with
	if err := d.raft.Campaign(context.Background()); err != nil {
		d.t.Fatal(err)
	}
	add() // candidate
	d.step(&raftpb.Message{Type: raftpb.MsgVoteResp.Enum(), From: proto.Uint64(2), To: proto.Uint64(1), Term: proto.Uint64(2)})
	add() // leader
	return out
}

// TestDrivesAlike takes raft.Node and raft.RawNode through the same life: what they
// give the loop must be the same, Ready by Ready.
func TestDrivesAlike(t *testing.T) {
	life := func(kind RaftKind) []string {
		d := startDriven(t, kind, 1, 2, 3)
		out := d.lead()
		add := func() { out = append(out, describeReady(d.handle())) }
		ack := func(from, index uint64) {
			d.step(&raftpb.Message{Type: raftpb.MsgAppResp.Enum(), From: &from, To: proto.Uint64(1), Term: proto.Uint64(2), Index: &index})
		}
		ack(2, 4)
		add() // the leader's own entry is committed
		if err := d.raft.ReadIndex(context.Background(), []byte("read")); err != nil {
			t.Fatal(err)
		}
		asked := d.handle() // heartbeats
		out = append(out, describeReady(asked))
		d.step(&raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), From: proto.Uint64(2), To: proto.Uint64(1), Term: proto.Uint64(2), Context: asked.Messages[0].Context})
		add() // answered
		d.step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), Entries: []*raftpb.Entry{{Data: []byte("a")}, {Data: []byte("b")}}})
		add()
		d.step(&raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), From: proto.Uint64(9), To: proto.Uint64(1), Term: proto.Uint64(2)}) // a stranger: nothing
		ack(2, 6)
		ack(3, 6)
		add() // committed, once
		d.raft.ReportUnreachable(3)
		d.raft.Tick()
		add() // heartbeats
		d.step(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: proto.Uint64(3), To: proto.Uint64(1), Term: proto.Uint64(5)})
		add() // deposed
		return out
	}
	want, got := life(RaftNode), life(RaftRawNode)
	if len(want) < 10 {
		t.Fatalf("%d Readys", len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("Ready %d of raft.RawNode:\n%s\nof raft.Node:\n%s", i, got[i], want[i])
		}
	}
}

// TestHoldBack: without a leader a proposal waits, and is not lost; nor where the
// leader was lost and the loop has not heard of it yet.
func TestHoldBack(t *testing.T) {
	for _, kind := range []RaftKind{RaftNode, RaftRawNode} {
		t.Run(string(kind), func(t *testing.T) {
			d := startDriven(t, kind, 1, 2, 3)
			d.handle()
			prop := func() *raftpb.Message {
				return &raftpb.Message{Type: raftpb.MsgProp.Enum(), Entries: []*raftpb.Entry{{Data: []byte("x")}}}
			}
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
			defer cancel()
			if err := d.raft.Step(ctx, prop()); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("a proposal without a leader: %v", err)
			}
			done := make(chan error, 1)
			go func() { done <- d.raft.Step(context.Background(), prop()) }()
			d.step(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: proto.Uint64(2), To: proto.Uint64(1), Term: proto.Uint64(2)})
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			for forwarded := false; !forwarded; {
				for _, m := range d.handle().Messages {
					forwarded = forwarded || m.GetType() == raftpb.MsgProp && m.GetTo() == 2
				}
			}
			// A vote of a later term takes the leader away.
			d.step(&raftpb.Message{Type: raftpb.MsgVote.Enum(), From: proto.Uint64(3), To: proto.Uint64(1), Term: proto.Uint64(3), LogTerm: proto.Uint64(9), Index: proto.Uint64(9)})
			d.raft.Status() // raft.Node has taken it
			late, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
			defer cancel()
			if err := d.raft.Step(late, prop()); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("a proposal after the leader was lost: %v", err)
			}
		})
	}
}

// TestRemovedHoldsBack: a leader that a change of membership removed takes no more
// proposals.
func TestRemovedHoldsBack(t *testing.T) {
	for _, kind := range []RaftKind{RaftNode, RaftRawNode} {
		t.Run(string(kind), func(t *testing.T) {
			d := startDriven(t, kind, 1, 2, 3)
			d.lead()
			d.raft.ApplyConfChange(&raftpb.ConfChange{Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: proto.Uint64(1)})
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
			defer cancel()
			if err := d.raft.Propose(ctx, []byte("x")); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a removed node: %v", err)
			}
		})
	}
}

// TestLogHasItsOwn: raft's log keeps a copy of what is proposed. Who proposes may use
// the memory again once the entry is applied, and the load generator does: should a
// later raft stop copying, it must stop too.
func TestLogHasItsOwn(t *testing.T) {
	for _, kind := range []RaftKind{RaftNode, RaftRawNode} {
		t.Run(string(kind), func(t *testing.T) {
			d := startDriven(t, kind, 1, 2, 3)
			d.lead()
			payload := []byte("before")
			d.step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), Entries: []*raftpb.Entry{{Data: payload}}})
			for {
				if ents := d.handle().Entries; len(ents) > 0 && string(ents[len(ents)-1].GetData()) == "before" {
					if &ents[len(ents)-1].GetData()[0] == &payload[0] {
						t.Error("the entry in the log is in the proposer's memory")
					}
					return
				}
			}
		})
	}
}

// TestRawNodeStops: after Stop every call returns, those that wait included.
func TestRawNodeStops(t *testing.T) {
	d := startDriven(t, RaftRawNode, 1, 2, 3)
	waits := make(chan error, 1)
	go func() { waits <- d.raft.Propose(context.Background(), []byte("x")) }()
	d.raft.Stop()
	d.raft.Stop()
	if err := <-waits; !errors.Is(err, raft.ErrStopped) {
		t.Errorf("a proposal that waited: %v", err)
	}
	ctx := context.Background()
	for name, err := range map[string]error{
		"Step": d.raft.Step(ctx, msg(raftpb.MsgHeartbeat, 1)), "Propose": d.raft.Propose(ctx, nil), "ReadIndex": d.raft.ReadIndex(ctx, nil),
		"Campaign": d.raft.Campaign(ctx), "ForgetLeader": d.raft.ForgetLeader(ctx), "ProposeConfChange": d.raft.ProposeConfChange(ctx, &raftpb.ConfChange{}),
	} {
		if !errors.Is(err, raft.ErrStopped) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if cs := d.raft.ApplyConfChange(&raftpb.ConfChange{}); cs != nil {
		t.Errorf("ApplyConfChange: %v", cs)
	}
	if _, ok := d.raw.take(); ok {
		t.Error("a stopped node has a Ready")
	}
	d.raft.Tick()
	d.raft.Advance()
	d.raft.ReportUnreachable(2)
}

// TestReadyOnce: what happens between an announcement and take is in one Ready, and
// none is announced before Advance.
func TestReadyOnce(t *testing.T) {
	d := startDriven(t, RaftRawNode, 1, 2, 3)
	d.lead()
	for _, data := range []string{"a", "b"} {
		if err := d.raft.Propose(context.Background(), []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	rd := d.ready()
	if len(rd.Entries) != 2 {
		t.Fatalf("%d entries in the Ready, want both", len(rd.Entries))
	}
	if err := d.raft.Propose(context.Background(), []byte("c")); err != nil {
		t.Fatal(err)
	}
	if _, ok := d.raw.take(); ok || len(d.raw.readied) > 0 {
		t.Fatal("a second Ready before Advance")
	}
	if err := d.log.Append(rd.Entries); err != nil {
		t.Fatal(err)
	}
	d.raft.Advance()
	if rd := d.ready(); len(rd.Entries) != 1 {
		t.Fatalf("%d entries after Advance, want 1", len(rd.Entries))
	}
}

// TestProposeTakesOver: who finds another one proposing leaves his proposals to him.
func TestProposeTakesOver(t *testing.T) {
	d := startDriven(t, RaftRawNode, 1, 2, 3)
	d.lead()
	n := newHarness(true).n
	defer n.cancel()
	n.raft, n.raw, n.proposals = d.raft, d.raw, newQueue[*raftpb.Entry](16)
	n.lead.Store(1)
	d.raw.mu.Lock() // the first one stands here, in the middle of his step
	first := make(chan error, 1)
	go func() { first <- n.Propose(context.Background(), []byte("a")) }()
	deadline := time.Now().Add(time.Minute)
	for busy := false; !busy; {
		if busy = !n.proposing.TryLock(); !busy {
			n.proposing.Unlock()
		}
		busy = busy && n.proposals.empty()
		if time.Now().After(deadline) {
			t.Fatal("nobody proposes")
		}
		time.Sleep(time.Millisecond)
	}
	if err := n.Propose(context.Background(), []byte("b")); err != nil {
		t.Fatal(err)
	}
	d.raw.mu.Unlock()
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	if rd := d.ready(); len(rd.Entries) != 2 {
		t.Errorf("%d entries were proposed, want both", len(rd.Entries))
	}
}

// TestEnqueueDoesNotCompute: where Propose waits until raft is free, Enqueue returns,
// and what it was given is proposed later, in its order.
func TestEnqueueDoesNotCompute(t *testing.T) {
	d := startDriven(t, RaftRawNode, 1, 2, 3)
	d.lead()
	n := newHarness(true).n
	n.raft, n.raw, n.proposals = d.raft, d.raw, newQueue[*raftpb.Entry](2*yieldEvery)
	n.cfg.MaxBatch = 2 * yieldEvery
	n.lead.Store(1)
	n.goRun(n.proposeLoop)
	defer n.wg.Wait()
	defer n.cancel()
	payloads := make([][]byte, yieldEvery+1)
	for i := range payloads {
		payloads[i] = []byte{byte(i)}
	}
	d.raw.mu.Lock() // raft computes
	enqueued := make(chan error, 1)
	go func() { enqueued <- n.Enqueue(context.Background(), payloads...) }()
	select {
	case err := <-enqueued:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("Enqueue waits for raft")
	}
	d.raw.mu.Unlock()
	var got []*raftpb.Entry
	for len(got) < len(payloads) {
		got = append(got, d.handle().Entries...)
	}
	for i, e := range got {
		if !bytes.Equal(e.GetData(), payloads[i]) {
			t.Fatalf("entry %d holds %v, want %v", i, e.GetData(), payloads[i])
		}
	}
}

// TestProposeLeavesHeldBack: what raft holds back is proposed, in its order, once
// there is a leader; the caller does not wait for that.
func TestProposeLeavesHeldBack(t *testing.T) {
	d := startDriven(t, RaftRawNode, 1, 2, 3)
	n := newHarness(true).n
	n.raft, n.raw, n.proposals = d.raft, d.raw, newQueue[*raftpb.Entry](16)
	n.lead.Store(1) // the loop has not heard that there is none
	for _, data := range []string{"a", "b"} {
		if err := n.Propose(context.Background(), []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	d.lead()
	n.goRun(n.proposeLoop)
	defer n.wg.Wait()
	defer n.cancel()
	deadline := time.Now().Add(time.Minute)
	var got []string
	for len(got) < 2 && time.Now().Before(deadline) {
		for _, e := range d.handle().Entries {
			got = append(got, string(e.GetData()))
		}
	}
	if strings.Join(got, " ") != "a b" {
		t.Errorf("proposed %q, want a b", got)
	}
}
