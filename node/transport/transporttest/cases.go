package transporttest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// samples is one message of each type that travels between nodes, with every
// field that raft sets for it.
func samples(to uint64) []*raftpb.Message {
	u := func(v uint64) *uint64 { return &v }
	msg := func(typ raftpb.MessageType, m *raftpb.Message) *raftpb.Message {
		m.Type, m.To = typ.Enum(), u(to)
		return m
	}
	entry := func(index uint64, data string) *raftpb.Entry {
		return &raftpb.Entry{Type: raftpb.EntryNormal.Enum(), Term: u(5), Index: u(index), Data: []byte(data)}
	}
	return []*raftpb.Message{
		msg(raftpb.MsgApp, &raftpb.Message{Term: u(5), LogTerm: u(5), Index: u(8), Commit: u(7),
			Entries: []*raftpb.Entry{entry(9, "nine"), entry(10, ""), entry(11, "eleven")}}),
		msg(raftpb.MsgApp, &raftpb.Message{Term: u(6), LogTerm: u(5), Index: u(11), Commit: u(11)}),
		msg(raftpb.MsgAppResp, &raftpb.Message{Term: u(5), LogTerm: u(4), Index: u(11), Reject: new(true), RejectHint: u(6), Commit: u(3)}),
		msg(raftpb.MsgVote, &raftpb.Message{Term: u(6), LogTerm: u(5), Index: u(11), Context: []byte("CampaignTransfer")}),
		msg(raftpb.MsgVoteResp, &raftpb.Message{Term: u(6), Reject: new(true)}),
		msg(raftpb.MsgPreVote, &raftpb.Message{Term: u(7), LogTerm: u(5), Index: u(11)}),
		msg(raftpb.MsgPreVoteResp, &raftpb.Message{Term: u(7)}),
		msg(raftpb.MsgHeartbeat, &raftpb.Message{Term: u(7), Commit: u(10), Context: []byte("read 1")}),
		msg(raftpb.MsgHeartbeatResp, &raftpb.Message{Term: u(7), Context: []byte("read 1")}),
		msg(raftpb.MsgProp, &raftpb.Message{Entries: []*raftpb.Entry{{Data: []byte("forwarded")}}}),
		msg(raftpb.MsgReadIndex, &raftpb.Message{Entries: []*raftpb.Entry{{Data: []byte("read 2")}}}),
		msg(raftpb.MsgReadIndexResp, &raftpb.Message{Term: u(7), Index: u(11), Entries: []*raftpb.Entry{{Data: []byte("read 2")}}}),
		msg(raftpb.MsgTransferLeader, &raftpb.Message{Term: u(7)}),
		msg(raftpb.MsgTimeoutNow, &raftpb.Message{Term: u(7)}),
		snapshot(to, 100, []byte("state")),
	}
}

func snapshot(to, index uint64, data []byte) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MsgSnap.Enum(), To: &to, Term: new(uint64(7)), Snapshot: &raftpb.Snapshot{
		Data: data,
		Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: new(uint64(6)),
			ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}, Learners: []uint64{4}}},
	}}
}

// append1 is a MsgApp with one entry, as a leader sends it whose term is 1.
func append1(to, index uint64, data []byte) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MsgApp.Enum(), To: &to, Term: new(uint64(1)), LogTerm: new(uint64(1)),
		Index: new(index - 1), Commit: new(index - 1), Entries: []*raftpb.Entry{{Term: new(uint64(1)), Index: &index, Data: data}}}
}

// canonical is m without the difference between a field that is absent and one
// that holds its default, which no reader of raft messages sees.
func canonical(m *raftpb.Message) *raftpb.Message {
	c := proto.Clone(m).(*raftpb.Message)
	var strip func(protoreflect.Message)
	strip = func(m protoreflect.Message) {
		m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case f.IsList() && f.Message() != nil:
				for i := range v.List().Len() {
					strip(v.List().Get(i).Message())
				}
			case f.IsList():
			case f.Message() != nil:
				strip(v.Message())
			case f.Kind() == protoreflect.BytesKind && len(v.Bytes()) == 0,
				f.Kind() != protoreflect.BytesKind && v.Equal(f.Default()):
				m.Clear(f)
			}
			return true
		})
	}
	strip(c.ProtoReflect())
	return c
}

func sameMessage(a, b *raftpb.Message) bool { return proto.Equal(canonical(a), canonical(b)) }

func deliversEveryType(c *cluster) {
	ms := c.joinAll(2)
	for _, m := range samples(2) {
		ms[1].forget()
		want := proto.Clone(m).(*raftpb.Message)
		want.From = new(uint64(1))
		ms[0].send(m)
		c.eventually(fmt.Sprintf("node 2 receives %s", m.GetType()), func() bool { return ms[1].receivedCount() > 0 })
		got := ms[1].received(m.GetType())
		if len(got) != 1 || !sameMessage(got[0], want) {
			c.fatalf("%s arrived as\n%v, sent was\n%v", m.GetType(), got, want)
		}
	}
	ms[0].send(&raftpb.Message{Type: raftpb.MsgApp.Enum(), To: new(uint64(0))})
	c.connect(ms[0], ms[1])
	if n := ms[0].unreachableCount(0); n != 0 {
		c.fatalf("a message to node 0, raft's mark for what is not to be sent, was reported as unreachable")
	}
}

// window is how many messages the cases leave unanswered: fewer than any queue of
// a usable transport, so that a loss is a fault and not an overflow.
const window = 256

func keepsOrder(c *cluster) {
	const rounds = 2000
	ms := c.joinAll(2)
	lanes := []raftpb.MessageType{raftpb.MsgApp, raftpb.MsgProp, raftpb.MsgHeartbeat}
	for i := uint64(1); i <= rounds; i++ {
		ms[0].send(
			append1(2, i, []byte("entry")),
			&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(2)), Term: new(uint64(1)), Commit: &i},
			&raftpb.Message{Type: raftpb.MsgProp.Enum(), To: new(uint64(2)), Entries: []*raftpb.Entry{{Index: &i}}},
		)
		if i%(window/8) == 0 || i == rounds {
			c.eventually(fmt.Sprintf("node 2 receives all of the first %d rounds", i), func() bool {
				return ms[1].receivedCount() >= int(i)*len(lanes)
			})
		}
	}
	for _, typ := range lanes {
		for i, m := range ms[1].received(typ) {
			seq := m.GetCommit()
			if typ != raftpb.MsgHeartbeat {
				seq = m.Entries[0].GetIndex()
			}
			if seq != uint64(i+1) {
				c.fatalf("%s number %d arrived in place %d", typ, seq, i+1)
			}
		}
	}
}

func concurrentSend(c *cluster) {
	const senders, each = 8, 100
	ms := c.joinAll(2)
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range uint64(each) {
				ms[0].send(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(2)), Term: new(uint64(1)),
					Commit: new(i), Context: []byte{byte(s)}})
			}
		})
	}
	wg.Wait()
	c.eventually("node 2 receives what all goroutines sent", func() bool { return ms[1].receivedCount() == senders*each })
	var next [senders]uint64
	for _, m := range ms[1].received(raftpb.MsgHeartbeat) {
		s := m.GetContext()[0]
		if m.GetCommit() != next[s] {
			c.fatalf("of goroutine %d, message %d arrived where %d was expected", s, m.GetCommit(), next[s])
		}
		next[s]++
	}
}

// payload is n bytes that differ everywhere, so that a lost or swapped part shows:
// random ones, repeated, with their position in every page.
func payload(n int) []byte {
	var block [64 << 10]byte
	rng := rand.NewChaCha8([32]byte{byte(n)})
	rng.Read(block[:]) // never fails
	b := make([]byte, n)
	for i := 0; i < n; i += copy(b[i:], block[:]) {
	}
	const page = 4 << 10
	for i := 0; i+8 <= n; i += page {
		binary.LittleEndian.PutUint64(b[i:], uint64(i))
	}
	return b
}

func carriesAnySize(c *cluster) {
	ms := c.joinAll(2)
	sizes := []int{0, 1, 1 << 10, 64<<10 - 1, 1<<20 + 1, 4 << 20, 16<<20 + 3, 64 << 20}
	for i, n := range sizes {
		data := payload(n)
		ms[0].send(append1(2, uint64(i+1), data))
		c.eventually(fmt.Sprintf("an entry of %d bytes arrives", n), func() bool { return len(ms[1].received(raftpb.MsgApp)) == 1 })
		checkPayload(c, "entry", ms[1].received(raftpb.MsgApp)[0].Entries[0].GetData(), data)
		ms[1].forget()
	}
	if gibAsked() {
		sizes = append(sizes, 1<<30)
	}
	for i, n := range sizes {
		data := payload(n)
		ms[0].send(snapshot(2, uint64(i+1), data))
		c.eventually(fmt.Sprintf("a snapshot of %d bytes arrives", n), func() bool {
			return len(ms[1].received(raftpb.MsgSnap)) == 1 || ms[0].snapshotCount(2).failed > 0
		})
		if ms[0].snapshotCount(2).failed > 0 {
			c.fatalf("a snapshot of %d bytes was reported as failed", n)
		}
		checkPayload(c, "snapshot", ms[1].received(raftpb.MsgSnap)[0].GetSnapshot().GetData(), data)
		ms[1].forget()
	}
}

func checkPayload(c *cluster, what string, got, want []byte) {
	c.t.Helper()
	if len(got) != len(want) || xxhash.Sum64(got) != xxhash.Sum64(want) {
		c.fatalf("%s: %d bytes with hash %x arrived, %d with hash %x were sent", what,
			len(got), xxhash.Sum64(got), len(want), xxhash.Sum64(want))
	}
}

func isolates(c *cluster) {
	ms := c.joinAll(3)
	// What the sender changes once Send has returned.
	for _, m := range samples(2) {
		ms[1].forget()
		want := proto.Clone(m).(*raftpb.Message)
		want.From = new(uint64(1))
		ms[0].send(m)
		scribble(m)
		c.eventually(fmt.Sprintf("node 2 receives %s", want.GetType()), func() bool { return ms[1].receivedCount() > 0 })
		if got := ms[1].received(want.GetType()); len(got) != 1 || !sameMessage(got[0], want) {
			c.fatalf("%s: a change after Send shows at the receiver\n got %v\nwant %v", want.GetType(), got, want)
		}
	}
	// What one receiver changes, as raft does: it keeps the slice of entries,
	// appends to it, and replaces elements.
	ms[1].forget()
	shared := make([]*raftpb.Entry, 2, 8)
	for i := range shared {
		shared[i] = &raftpb.Entry{Term: new(uint64(1)), Index: new(uint64(i + 1)), Data: []byte("shared")}
	}
	for _, to := range []uint64{2, 3} {
		ms[0].send(&raftpb.Message{Type: raftpb.MsgApp.Enum(), To: &to, Term: new(uint64(1)), Entries: shared})
	}
	for _, m := range ms[1:] {
		c.eventually(fmt.Sprintf("node %d receives the entries", m.id), func() bool { return len(m.received(raftpb.MsgApp)) == 1 })
		got := m.received(raftpb.MsgApp)[0]
		mine := &raftpb.Entry{Term: &m.id}
		extended := append(got.Entries, mine)
		got.Entries[0] = mine
		if len(extended) != 3 || got.Entries[1].GetIndex() != 2 {
			c.fatalf("node %d received %v", m.id, got)
		}
	}
	if shared[0].GetIndex() != 1 || shared[:3][2] != nil {
		c.fatalf("what a receiver did to its entries shows at the sender: %v", shared[:3])
	}
	if a, b := ms[1].received(raftpb.MsgApp)[0], ms[2].received(raftpb.MsgApp)[0]; a.Entries[0].GetTerm() != 2 || b.Entries[0].GetTerm() != 3 {
		c.fatalf("two receivers share their entries: %v and %v", a, b)
	}
}

// scribble changes all of a message that belongs to the transport once it is sent:
// everything but the entries themselves and the data of a snapshot.
func scribble(m *raftpb.Message) {
	for _, p := range []*uint64{m.To, m.From, m.Term, m.LogTerm, m.Index, m.Commit, m.Vote, m.RejectHint} {
		if p != nil {
			*p += 1000
		}
	}
	*m.Type = raftpb.MsgUnreachable
	if m.Reject != nil {
		*m.Reject = !*m.Reject
	}
	for i := range m.Entries {
		m.Entries[i] = &raftpb.Entry{Data: []byte("scribbled")}
	}
	for i := range m.Context {
		m.Context[i] ^= 0xff
	}
	if s := m.Snapshot; s != nil {
		*s.Metadata.Index += 1000
		s.Metadata.ConfState.Voters[0] += 1000
		s.Metadata, s.Data = nil, nil
	}
}

func stuckPeer(c *cluster) {
	const most, batch = 1 << 17, 64 // of 4 KiB: 512 MiB, which no queue should hold
	ms := c.joinAll(3)
	ms[1].stick()
	data := payload(4 << 10)
	sent := uint64(0)
	c.returns("Send to a node that is stuck", func() {
		for ; sent < most && ms[0].unreachableCount(2) == 0; sent += batch {
			msgs := make([]*raftpb.Message, batch)
			for i := range msgs {
				msgs[i] = append1(2, sent+uint64(i)+1, data)
			}
			ms[0].send(msgs...)
		}
	})
	// The report comes from another goroutine: what was refused may have been
	// refused already.
	if sent >= most {
		c.eventually(fmt.Sprintf("a queue overflows that was sent %d messages of 4 KiB, and this is reported", sent), func() bool {
			return ms[0].unreachableCount(2) > 0
		})
	}
	c.connect(ms[0], ms[2])
	ms[1].release()
	c.connect(ms[0], ms[1])
	last := uint64(0)
	for _, m := range ms[1].received(raftpb.MsgApp) {
		if i := m.Entries[0].GetIndex(); i <= last {
			c.fatalf("after an overflow, message %d arrived after %d", i, last)
		} else {
			last = i
		}
	}
}

func proposalLane(c *cluster) {
	ms := c.joinAll(2)
	var held atomic.Int64
	ms[1].setHandle(func(ctx context.Context, m *raftpb.Message) error {
		if m.GetType() != raftpb.MsgProp {
			return nil
		}
		held.Add(1)
		<-ctx.Done()
		return ctx.Err()
	})
	ms[0].send(&raftpb.Message{Type: raftpb.MsgProp.Enum(), To: new(uint64(2)), Entries: []*raftpb.Entry{{Data: []byte("no leader")}}})
	c.eventually("the proposal arrives", func() bool { return held.Load() == 1 })
	ms[0].send(&raftpb.Message{Type: raftpb.MsgVote.Enum(), To: new(uint64(2)), Term: new(uint64(2))})
	c.eventually("a vote passes the proposal", func() bool { return len(ms[1].received(raftpb.MsgVote)) == 1 })
}

func reportsUnreachable(c *cluster) {
	ms := c.joinAll(2)
	for _, absent := range []uint64{9, 2} {
		if absent == 2 {
			if err := ms[1].close(); err != nil {
				c.fatalf("close: %v", err)
			}
		}
		before := ms[0].unreachableCount(absent)
		i := uint64(0)
		c.eventually(fmt.Sprintf("a message to node %d, which is not there, is reported", absent), func() bool {
			i++
			ms[0].send(append1(absent, i, nil))
			return ms[0].unreachableCount(absent) > before
		})
	}
}

func reportsSnapshots(c *cluster) {
	ms := c.joinAll(3)
	sent := map[uint64]snapshotReports{}
	expect := func(what string, to uint64, finished, failed int) {
		c.t.Helper()
		want := sent[to]
		want.finished += finished
		want.failed += failed
		sent[to] = want
		c.eventually(fmt.Sprintf("%s: %+v reported", what, want), func() bool {
			got := ms[0].snapshotCount(to)
			if got.finished > want.finished || got.failed > want.failed {
				c.fatalf("%s: %+v reported, want %+v", what, got, want)
			}
			return got == want
		})
	}
	data := payload(100 << 10)

	ms[0].send(snapshot(9, 1, data))
	expect("a snapshot to a node that is not there", 9, 0, 1)

	ms[0].send(snapshot(2, 1, data))
	expect("a snapshot that was taken", 2, 1, 0)
	if n := len(ms[1].received(raftpb.MsgSnap)); n != 1 {
		c.fatalf("Finish was reported when node 2 had taken %d snapshots", n)
	}

	ms[1].setHandle(func(context.Context, *raftpb.Message) error { return errors.New("no, thank you") })
	ms[0].send(snapshot(2, 2, data))
	expect("a snapshot that was refused", 2, 0, 1)
	ms[1].setHandle(nil)

	ms[0].send(snapshot(2, 3, data), snapshot(3, 3, data))
	expect("one of two snapshots in one Send", 2, 1, 0)
	expect("the other one", 3, 1, 0)

	ms[1].stick()
	ms[0].send(snapshot(2, 4, data))
	if err := ms[1].close(); err != nil {
		c.fatalf("close: %v", err)
	}
	expect("a snapshot to a node that leaves before it takes it", 2, 0, 1)

	// By now a second report of an earlier one would have come.
	for range 3 {
		ms[0].send(snapshot(3, 5, data))
		expect("one more snapshot", 3, 1, 0)
	}
	for to := range sent {
		expect("in the end", to, 0, 0)
	}
}

// A node calls Send from its loop and its report methods wait for the loop.
func reportsOutsideSend(c *cluster) {
	ms := c.joinAll(1)
	loop := make(chan struct{}, 1) // holds something while the loop is busy
	ms[0].mu.Lock()
	ms[0].onReport = func() {
		select {
		case loop <- struct{}{}:
			<-loop
		case <-c.over:
		}
	}
	ms[0].mu.Unlock()
	c.returns("Send from a loop for which the report methods wait", func() {
		for i := range uint64(100) {
			loop <- struct{}{}
			ms[0].send(append1(9, i+1, nil), snapshot(9, i+1, nil))
			<-loop
		}
	})
	c.eventually("every snapshot is reported", func() bool { return ms[0].snapshotCount(9).failed == 100 })
}

func reconnects(c *cluster) {
	ms := c.joinAll(2)
	for life := range 3 {
		for _, who := range []int{1, 0, 1} {
			other := ms[1-who]
			if err := ms[who].close(); err != nil {
				c.fatalf("close node %d: %v", who+1, err)
			}
			// To find, and not to be fooled by, the gap.
			other.send(append1(ms[who].id, uint64(life+1), nil))
			ms[who] = c.join(ms[who].id)
			c.connect(other, ms[who])
			c.connect(ms[who], other)
			ms[who].forget()
			other.send(snapshot(ms[who].id, uint64(life+1), []byte("state")))
			c.eventually("a snapshot reaches the node that is back", func() bool {
				return len(ms[who].received(raftpb.MsgSnap)) == 1
			})
		}
	}
}

func closes(c *cluster) {
	ms := c.joinAll(3)
	for i := range uint64(window) {
		ms[0].send(append1(2, i+1, []byte("late")))
	}
	for _, m := range ms[:2] {
		c.returns("Close", func() {
			if err := m.close(); err != nil {
				c.t.Errorf("close: %v", err)
			}
		})
	}
	before := ms[2].receivedCount()
	ms[0].send(append1(2, 1, nil), append1(3, 1, nil), snapshot(3, 1, nil))
	ms[1].send(append1(3, 1, nil))
	if err := ms[0].tr.Close(); err != nil {
		c.fatalf("a second Close: %v", err)
	}
	four := c.join(4)
	c.connect(four, ms[2])
	if n := ms[2].receivedCount(); n != before {
		c.fatalf("node 3 received what was sent after Close")
	}
}

func closesWhileStuck(c *cluster) {
	ms := c.joinAll(3)
	for _, m := range ms {
		m.stick()
	}
	for _, from := range ms {
		for _, to := range ms {
			if from != to {
				for i := range uint64(20) {
					from.send(append1(to.id, i+1, nil), &raftpb.Message{Type: raftpb.MsgProp.Enum(), To: &to.id})
				}
				from.send(snapshot(to.id, 1, payload(1<<20)))
			}
		}
	}
	var wg sync.WaitGroup
	for _, m := range ms {
		wg.Go(func() {
			if err := m.close(); err != nil {
				c.t.Errorf("close: %v", err)
			}
		})
	}
	c.returns("Close of three nodes that are stuck and send to each other", wg.Wait)
}

func closesDuringTraffic(c *cluster) {
	ms := c.joinAll(3)
	stop := make(chan struct{})
	var senders, closers sync.WaitGroup
	data := bytes.Repeat([]byte("x"), 1<<10)
	for _, from := range ms {
		senders.Go(func() {
			for i := uint64(1); ; i++ {
				select {
				case <-stop:
					return
				case <-c.over:
					return
				default:
				}
				for to := range uint64(3) {
					from.send(append1(to+1, i, data), &raftpb.Message{Type: raftpb.MsgProp.Enum(), To: new(to + 1)})
					if i%50 == 0 && to+1 != from.id {
						from.send(snapshot(to+1, i, data))
					}
				}
			}
		})
	}
	c.eventually("traffic flows", func() bool {
		return ms[0].receivedCount() > 100 && ms[1].receivedCount() > 100 && ms[2].receivedCount() > 100
	})
	for _, m := range ms {
		closers.Go(func() {
			if err := m.close(); err != nil {
				c.t.Errorf("close: %v", err)
			}
		})
	}
	c.returns("Close during traffic", closers.Wait)
	close(stop)
	c.returns("Send during and after Close", senders.Wait)
}
