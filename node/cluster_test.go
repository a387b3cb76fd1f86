package node_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kept is a storage that outlives its node, as a disk does.
type kept struct {
	streamCounts
	mu    sync.Mutex
	state backends.State
	fail  error
}

func (k *kept) Save(hs *raftpb.HardState, ents []*raftpb.Entry) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return k.fail
	}
	if !raft.IsEmptyHardState(hs) {
		k.state.HardState = proto.Clone(hs).(*raftpb.HardState)
	}
	if len(ents) > 0 {
		keep := 0
		for keep < len(k.state.Entries) && k.state.Entries[keep].GetIndex() < ents[0].GetIndex() {
			keep++
		}
		k.state.Entries = append(k.state.Entries[:keep:keep], ents...)
	}
	return nil
}

func (k *kept) SaveSnap(snap *raftpb.Snapshot) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state.Snapshot = snap
	return nil
}
func (k *kept) Sync() error                    { return nil }
func (k *kept) Release(*raftpb.Snapshot) error { return nil }
func (k *kept) Close() error                   { return nil }

func (k *kept) reopen(t *testing.T) backends.State {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	st, err := backends.Recover("memory", k.state.HardState, k.state.Snapshot, append([]*raftpb.Entry(nil), k.state.Entries...))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// group is a cluster of a test.
type group struct {
	t     *testing.T
	drive drive
	net   node.Network
	peers []uint64
	nodes map[uint64]*node.Node
	disks map[uint64]*kept
	kvs   map[uint64]*counted
	// streams are the nodes whose storage takes streams.
	streams map[uint64]bool
	trace   *node.Trace
}

// counted is a state machine that can be asked how much it has applied while it
// is at work.
type counted struct {
	*node.KV
	n        atomic.Uint64
	captures atomic.Int64
}

func (c *counted) Snapshot() func() ([]byte, error) {
	c.captures.Add(1)
	return c.KV.Snapshot()
}

func (c *counted) note() {
	n, _ := c.KV.Applied()
	c.n.Store(n)
}

func (c *counted) Apply(ents []*raftpb.Entry) {
	c.KV.Apply(ents)
	c.note()
}

func (c *counted) Restore(data []byte) error {
	defer c.note()
	return c.KV.Restore(data)
}

func newGroup(t *testing.T, d drive, n int) *group { return newTracedGroup(t, d, n, nil) }

func newTracedGroup(t *testing.T, d drive, n int, trace *node.Trace) *group {
	g := &group{t: t, drive: d, trace: trace, net: mem.New(mem.Options{}), nodes: map[uint64]*node.Node{}, disks: map[uint64]*kept{}, kvs: map[uint64]*counted{}}
	for id := uint64(1); id <= uint64(n); id++ {
		g.peers = append(g.peers, id)
	}
	for _, id := range g.peers {
		g.disks[id] = &kept{}
		g.start(id, false)
	}
	g.cleanup()
	return g
}

func (g *group) cleanup() {
	g.t.Cleanup(func() {
		for _, n := range g.nodes {
			n.Stop()
		}
		if err := g.net.Close(); err != nil {
			g.t.Error(err)
		}
	})
}

func (g *group) start(id uint64, joining bool) {
	g.t.Helper()
	g.kvs[id] = &counted{KV: node.NewKV(64)}
	storage := backends.Storage(g.disks[id])
	if g.streams[id] {
		storage = &keptStreams{g.disks[id]}
	}
	n, err := node.Start(node.Config{
		ID: id, Peers: g.peers, Joining: joining, Storage: storage, State: g.disks[id].reopen(g.t), StateMachine: g.kvs[id],
		Network: g.net, Loop: g.drive.loop, Raft: g.drive.raft, Tick: 10 * time.Millisecond, SnapshotEntries: 200, CatchUpEntries: 50, Trace: g.trace,
	})
	if err != nil {
		g.t.Fatal(err)
	}
	g.nodes[id] = n
}

func (g *group) stop(id uint64) {
	g.nodes[id].Stop()
	delete(g.nodes, id)
}

// until polls; the deadline is generous because the machine may be slow.
func (g *group) until(what string, cond func() bool) {
	g.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			g.t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (g *group) leader() *node.Node {
	g.t.Helper()
	var lead *node.Node
	g.until("a leader", func() bool {
		for _, n := range g.nodes {
			if st := n.Status(); st.IsLeader && st.Applied > 0 {
				lead = n
				return true
			}
		}
		return false
	})
	return lead
}

// TestRestartTakesNoSnapshot: a node that comes back takes its next snapshot as many entries
// after the last one as ever, not at once.
func TestRestartTakesNoSnapshot(t *testing.T) {
	loops(t, func(t *testing.T, d drive) {
		g := newTracedGroup(t, d, 1, nil)
		g.propose(1, 251)
		g.until("a snapshot", func() bool { return g.nodes[1].Status().Snapshot > 0 })
		g.until("one that was asked for", func() bool {
			err := g.nodes[1].Snapshot(context.Background(), 0)
			if err != nil && !errors.Is(err, node.ErrSnapshotBusy) {
				t.Fatal(err)
			}
			return err == nil
		})
		g.stop(1)
		g.start(1, false)
		for id := uint64(251); id < 254; id++ { // each is applied when what follows from the one before has been begun
			before := g.kvs[1].n.Load()
			g.propose(id, id+1)
			g.until("applied", func() bool { return g.kvs[1].n.Load() > before })
		}
		if n := g.kvs[1].captures.Load(); n > 0 {
			t.Errorf("%d snapshots were begun after a restart and 3 entries", n)
		}
	})
}

// TestGiveWay: whatever holds a P for long asks whether it should give way.
func TestGiveWay(t *testing.T) {
	var asked sync.Map // name of the function that asks
	g := newTracedGroup(t, drive{node.LoopReady, node.RaftRawNode}, 3, &node.Trace{GiveWay: func() bool {
		var pcs [8]uintptr
		frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
		for more := true; more; {
			var f runtime.Frame
			f, more = frames.Next()
			asked.Store(strings.TrimSuffix(f.Function, ".func1"), true)
		}
		return true
	}})
	if err := g.leader().Enqueue(context.Background(), payload(1)); err != nil {
		t.Fatal(err)
	}
	for _, who := range []string{"run", "applyLoop", "proposeLoop", "Process"} {
		g.until(who+" asks whether to give way", func() bool {
			_, ok := asked.Load("github.com/raftbench/raftbench/node.(*Node)." + who)
			return ok
		})
	}
}

func payload(id uint64) []byte {
	p := binary.LittleEndian.AppendUint64(nil, id)
	p = binary.LittleEndian.AppendUint64(p, id%64)
	return append(p, fmt.Sprint("value ", id)...)
}

// propose sends payloads to whoever leads.
func (g *group) propose(from, to uint64) {
	g.t.Helper()
	for id := from; id < to; id++ {
		lead := g.leader()
		if err := lead.Propose(context.Background(), payload(id)); err != nil {
			g.t.Fatal(err)
		}
	}
}

// settled waits until every node has applied so many proposals, which must be all
// that were made, and compares their states.
func (g *group) settled(proposals uint64) {
	g.t.Helper()
	g.until("all nodes applied everything", func() bool {
		for id := range g.nodes {
			if g.kvs[id].n.Load() < proposals {
				return false
			}
		}
		return true
	})
	var want uint64
	for id, n := range g.nodes {
		got := g.kvs[id].Hash()
		if want == 0 {
			want = got
		}
		if got != want {
			g.t.Errorf("node %d holds another state (applied %d)", id, n.Status().Applied)
		}
	}
}

// drive is a loop, and what it runs raft with.
type drive struct {
	loop node.LoopKind
	raft node.RaftKind
}

func loops(t *testing.T, f func(t *testing.T, d drive)) {
	for _, loop := range []node.LoopKind{node.LoopReady, node.LoopAsync} {
		for _, kind := range []node.RaftKind{node.RaftNode, node.RaftRawNode} {
			t.Run(fmt.Sprintf("%s/%s", loop, kind), func(t *testing.T) { f(t, drive{loop, kind}) })
		}
	}
}

func TestReplicate(t *testing.T) {
	loops(t, func(t *testing.T, d drive) {
		g := newGroup(t, d, 3)
		g.leader()
		g.propose(1, 1001) // passes several snapshots
		g.settled(1000)
		for id, n := range g.nodes {
			g.until(fmt.Sprintf("node %d took a snapshot", id), func() bool { return n.Status().Snapshot > 0 })
		}
	})
}

func TestOneNode(t *testing.T) {
	loops(t, func(t *testing.T, d drive) {
		g := newGroup(t, d, 1)
		g.leader()
		g.propose(1, 101)
		g.settled(100)
	})
}

// TestProposeFromMany: what several goroutines propose at the same time is all
// proposed, whoever of them does it.
func TestProposeFromMany(t *testing.T) {
	loops(t, func(t *testing.T, d drive) {
		const callers, each = 8, 250
		g := newGroup(t, d, 1)
		lead := g.leader()
		var wg sync.WaitGroup
		for c := range uint64(callers) {
			wg.Go(func() {
				for i := range uint64(each) {
					if err := lead.Propose(context.Background(), payload(1+c*each+i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		g.settled(callers * each)
	})
}

// TestRestart stops all nodes and starts them on what they saved.
func TestRestart(t *testing.T) {
	loops(t, func(t *testing.T, d drive) {
		g := newGroup(t, d, 3)
		g.leader()
		g.propose(1, 401)
		g.settled(400)
		want := g.kvs[1].Hash()
		for id := range g.disks {
			g.stop(id)
		}
		for id := range g.disks {
			g.start(id, false)
		}
		g.settled(400)
		if got := g.kvs[1].Hash(); got != want {
			t.Errorf("another state after the restart")
		}
		g.propose(401, 501)
		g.settled(500)
	})
}

// TestInstallSnapshot brings back a follower that lost everything, after the log
// was compacted past it.
func TestInstallSnapshot(t *testing.T) {
	loops(t, func(t *testing.T, d drive) {
		g := newGroup(t, d, 3)
		lead := g.leader()
		g.propose(1, 51)
		g.settled(50)
		gone := lead.Status().ID%3 + 1
		g.stop(gone)
		lead = g.leader()
		g.propose(51, 301)
		g.until("applied", func() bool { return lead.Status().Applied >= 300 })
		g.until("compacted", func() bool {
			err := lead.Snapshot(context.Background(), 0)
			if err != nil && !errors.Is(err, node.ErrSnapshotBusy) {
				t.Fatal(err)
			}
			return err == nil
		})
		g.start(gone, false)
		g.settled(300)
		if g.disks[gone].state.Snapshot == nil {
			t.Error("the follower caught up without a snapshot")
		}
	})
}

func TestMembership(t *testing.T) {
	loops(t, func(t *testing.T, d drive) {
		g := newGroup(t, d, 3)
		g.propose(1, 11)
		change := func(typ raftpb.ConfChangeType, id uint64, done func(*raftpb.ConfState) bool) {
			g.until("membership change", func() bool {
				if err := g.leader().ProposeConfChange(context.Background(), &raftpb.ConfChange{Type: typ.Enum(), NodeId: &id}); err != nil {
					t.Fatal(err)
				}
				ok := false
				deadline := time.Now().Add(time.Second) // then propose again: it may have been dropped
				for !ok && time.Now().Before(deadline) {
					ok = done(g.members())
					time.Sleep(time.Millisecond)
				}
				return ok
			})
		}
		has := func(cs *raftpb.ConfState, id uint64) bool {
			for _, v := range cs.GetVoters() {
				if v == id {
					return true
				}
			}
			return false
		}
		g.disks[4] = &kept{}
		g.start(4, true)
		change(raftpb.ConfChangeAddNode, 4, func(cs *raftpb.ConfState) bool { return has(cs, 4) })
		g.propose(11, 61)
		g.settled(60)
		gone := g.leader().Status().ID%4 + 1 // a follower
		change(raftpb.ConfChangeRemoveNode, gone, func(cs *raftpb.ConfState) bool { return !has(cs, gone) })
		lead := g.leader()
		m := &raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), From: &gone}
		if err := lead.Process(context.Background(), m); err == nil {
			t.Errorf("node %d takes messages of removed node %d", lead.Status().ID, gone)
		}
		g.stop(gone)
		g.propose(61, 111)
		g.settled(110)
	})
}

// members is the configuration that the leader's next snapshot records.
func (g *group) members() *raftpb.ConfState {
	lead := g.leader()
	if err := lead.Snapshot(context.Background(), 50); err != nil {
		return &raftpb.ConfState{}
	}
	d := g.disks[lead.Status().ID]
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.Snapshot.GetMetadata().GetConfState()
}

// TestReadIndex: a read sees every write that was applied before it was asked.
func TestReadIndex(t *testing.T) {
	loops(t, func(t *testing.T, d drive) {
		g := newGroup(t, d, 3)
		lead := g.leader()
		g.propose(1, 201)
		g.until("applied", func() bool { return lead.Status().Applied >= 200 })
		applied := lead.Status().Applied
		for id, n := range g.nodes { // followers too: they ask the leader
			done := make(chan error, 1)
			if err := n.ReadIndex(context.Background(), func(err error) { done <- err }); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if got := n.Status().Applied; got < applied {
				t.Errorf("node %d reads at %d, but %d was applied before", id, got, applied)
			}
		}
	})
}

// TestStorageFailure: the node whose disk fails stops and says why; the others go
// on.
func TestStorageFailure(t *testing.T) {
	loops(t, func(t *testing.T, d drive) {
		g := newGroup(t, d, 3)
		g.propose(1, 51)
		g.settled(50)
		bad := g.leader()
		id := bad.Status().ID
		g.disks[id].mu.Lock()
		g.disks[id].fail = errors.New("input/output error")
		g.disks[id].mu.Unlock()
		if err := bad.Propose(context.Background(), payload(51)); err != nil {
			t.Fatal(err)
		}
		<-bad.Failed()
		if err := bad.Err(); err == nil || !errors.Is(err, g.disks[id].fail) {
			t.Errorf("node %d stopped with %v", id, err)
		}
		if err := bad.Propose(context.Background(), payload(52)); !errors.Is(err, node.ErrStopped) {
			t.Errorf("a stopped node takes proposals: %v", err)
		}
		g.stop(id)
		g.propose(52, 102)
		g.until("the others go on", func() bool { return g.leader().Status().Applied >= 101 })
	})
}

// TestStalledSave: while the leader's Save stands, more proposals than the queue holds
// are taken, and neither refused nor lost: their callers measure how long they take.
func TestStalledSave(t *testing.T) {
	for _, d := range []drive{{node.LoopReady, node.RaftRawNode}, {node.LoopAsync, node.RaftNode}} {
		t.Run(fmt.Sprintf("%s/%s", d.loop, d.raft), func(t *testing.T) {
			g := newGroup(t, d, 1)
			lead := g.leader()
			const batches, batch = 18, 4096 // the queue holds 65,536
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			g.disks[1].mu.Lock()
			for b := range uint64(batches) {
				payloads := make([][]byte, batch)
				for i := range payloads {
					payloads[i] = payload(b*batch + uint64(i) + 1)
				}
				if err := lead.Propose(ctx, payloads...); err != nil {
					g.disks[1].mu.Unlock()
					t.Fatalf("batch %d: %v", b, err)
				}
			}
			if n := g.kvs[1].n.Load(); n > 0 {
				t.Errorf("%d proposals were applied while Save stood", n)
			}
			g.disks[1].mu.Unlock()
			g.settled(batches * batch)
		})
	}
}

func TestConfig(t *testing.T) {
	ok := func() node.Config {
		return node.Config{ID: 1, Peers: []uint64{1}, Storage: &kept{}, StateMachine: node.NewKV(1), Network: mem.New(mem.Options{})}
	}
	for name, change := range map[string]func(*node.Config){
		"no id":        func(c *node.Config) { c.ID = 0 },
		"no storage":   func(c *node.Config) { c.Storage = nil },
		"not a peer":   func(c *node.Config) { c.Peers = []uint64{2} },
		"unknown loop": func(c *node.Config) { c.Loop = "other" },
		"unknown raft": func(c *node.Config) { c.Raft = "other" },
		"election":     func(c *node.Config) { c.ElectionTicks = 1 },
		"batch":        func(c *node.Config) { c.MaxBatch = -1 },
	} {
		cfg := ok()
		change(&cfg)
		if n, err := node.Start(cfg); err == nil {
			n.Stop()
			t.Errorf("%s: started", name)
		}
	}
}
