package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/mem"
)

// keptStreams is a kept that takes streams.
type keptStreams struct{ *kept }

func (k *keptStreams) StageSnap(meta *raftpb.SnapshotMetadata, size int64, data io.Reader) (backends.StagedSnap, error) {
	k.stages.Add(1)
	b, err := io.ReadAll(iotest.HalfReader(data))
	if err == nil && int64(len(b)) != size {
		err = fmt.Errorf("%d bytes, announced were %d", len(b), size)
	}
	if err != nil { // as where the node stops meanwhile: nothing is staged
		return nil, err
	}
	k.staged.Add(1)
	return &keptStaged{k, &raftpb.Snapshot{Metadata: meta, Data: b}}, nil
}

type keptStaged struct {
	k    *keptStreams
	snap *raftpb.Snapshot
}

func (s *keptStaged) Save() error {
	s.k.staged.Add(-1)
	s.k.streamed.Add(1)
	return s.k.SaveSnap(s.snap)
}

func (s *keptStaged) Discard() error {
	s.k.staged.Add(-1)
	return nil
}

func (k *keptStreams) OpenSnap(meta *raftpb.SnapshotMetadata) (io.ReadCloser, int64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	snap := k.state.Snapshot
	if snap.GetMetadata().GetIndex() != meta.GetIndex() {
		return nil, 0, errors.New("it is gone")
	}
	k.open.Add(1)
	return &keptReader{bytes.NewReader(snap.Data), k}, int64(len(snap.Data)), nil
}

type keptReader struct {
	io.Reader
	k *keptStreams
}

func (r *keptReader) Close() error {
	r.k.open.Add(-1)
	return nil
}

func (c *counted) RestoreStream(data io.Reader, size int64) error {
	defer c.note()
	return c.KV.RestoreStream(data, size)
}

// streamCounts are what a keptStreams saw.
type streamCounts struct {
	staged, open atomic.Int64 // now
	stages       atomic.Int64 // begun, ever
	streamed     atomic.Int64 // snapshots saved
}

// TestStreamSnapshot brings back a follower that lost everything, between nodes
// of which all, or one end only, stream their snapshots.
func TestStreamSnapshot(t *testing.T) {
	for _, c := range []struct {
		name      string
		from, to  bool
		transport func() node.Network
	}{
		{"Both", true, true, func() node.Network { return mem.New(mem.Options{}) }},
		{"SenderOnly", true, false, func() node.Network { return mem.New(mem.Options{}) }},
		{"ReceiverOnly", false, true, func() node.Network { return mem.New(mem.Options{}) }},
		{"WholeMessages", true, true, func() node.Network { return plainNetwork{mem.New(mem.Options{})} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			loops(t, func(t *testing.T, d drive) {
				g := streamGroup(t, d, c.transport(), c.from, c.to)
				g.bringBack(3)
				streams := c.to && c.name != "WholeMessages"
				if got := g.disks[3].streamed.Load() > 0; c.to && c.from && got != streams {
					t.Errorf("the follower saved a stream: %v, want %v", got, streams)
				}
				for id, disk := range g.disks {
					g.stop(id)
					if staged, open := disk.staged.Load(), disk.open.Load(); staged != 0 || open != 0 {
						t.Errorf("node %d left %d staged and %d open snapshots", id, staged, open)
					}
				}
			})
		})
	}
}

// plainNetwork hides that its transports take streams.
type plainNetwork struct{ node.Network }

func (n plainNetwork) Join(id uint64, r node.Receiver) (node.Transport, error) {
	t, err := n.Network.Join(id, r)
	return struct{ node.Transport }{t}, err
}

// streamGroup is three nodes; from says whether 1 and 2 stream, to whether 3 does.
func streamGroup(t *testing.T, d drive, net node.Network, from, to bool) *group {
	g := &group{t: t, drive: d, net: net, peers: []uint64{1, 2, 3}, nodes: map[uint64]*node.Node{},
		disks: map[uint64]*kept{}, kvs: map[uint64]*counted{}, streams: map[uint64]bool{1: from, 2: from, 3: to}}
	for _, id := range g.peers {
		g.disks[id] = &kept{}
		g.start(id, false)
		want := node.SnapshotPlain
		if g.streams[id] {
			want = node.SnapshotStream
		}
		if got := g.nodes[id].Snapshots(); got != want {
			t.Fatalf("node %d: snapshots go the way %q, want %q", id, got, want)
		}
	}
	g.cleanup()
	return g
}

// bringBack stops a node, compacts the log past it, and starts it again.
func (g *group) bringBack(gone uint64) {
	g.t.Helper()
	g.leader()
	g.propose(1, 51)
	g.settled(50)
	g.stop(gone)
	lead := g.leader()
	g.propose(51, 301)
	g.until("applied", func() bool { return lead.Status().Applied >= 300 })
	g.until("compacted", func() bool {
		err := lead.Snapshot(context.Background(), 0)
		if err != nil && !errors.Is(err, node.ErrSnapshotBusy) {
			g.t.Fatal(err)
		}
		return err == nil
	})
	g.start(gone, false)
	g.settled(300)
	if g.disks[gone].state.Snapshot == nil {
		g.t.Error("the follower caught up without a snapshot")
	}
	g.propose(301, 351)
	g.settled(350)
}

// answers passes on what nodes answer to appends and snapshots.
type answers struct {
	node.Network
	seen chan *raftpb.Message
}

func (a *answers) Join(id uint64, r node.Receiver) (node.Transport, error) {
	t, err := a.Network.Join(id, r)
	return &answersOf{t, a.seen}, err
}

type answersOf struct {
	node.Transport
	seen chan *raftpb.Message
}

func (a *answersOf) Send(msgs []*raftpb.Message) {
	for _, m := range msgs {
		if m.GetType() == raftpb.MsgAppResp {
			a.seen <- proto.Clone(m).(*raftpb.Message)
		}
	}
	a.Transport.Send(msgs)
}

// snapshotTo is a MsgSnap of a snapshot at index, from node from of a term.
func snapshotTo(to, from, term, index uint64) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: &from, To: &to, Term: &term, Snapshot: &raftpb.Snapshot{
		Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: proto.Uint64(1), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}}}}}
}

// TestOldSnapshot: a snapshot of what is committed already, which was sent again or came
// late, is answered with the commit index, and written nowhere.
func TestOldSnapshot(t *testing.T) {
	loops(t, func(t *testing.T, d drive) {
		for _, streams := range []bool{true, false} {
			seen := make(chan *raftpb.Message, 10_000)
			g := streamGroup(t, d, &answers{mem.New(mem.Options{}), seen}, streams, streams)
			g.propose(1, 51)
			g.settled(50)
			const to, from = 1, 2
			commit := g.nodes[to].Status().Committed
			term := g.nodes[to].Status().Term + 100 // no election comes between
			data := strings.NewReader("what nobody needs")
			if err := g.nodes[to].ProcessSnapshot(context.Background(), snapshotTo(to, from, term, 30), data, data.Size()); err != nil {
				t.Fatal(err)
			}
			if data.Len() > 0 {
				t.Errorf("%d bytes of the stream were not read", data.Len())
			}
			if n := g.disks[to].stages.Load(); n > 0 {
				t.Errorf("%d snapshots were staged, want none", n)
			}
			var answer *raftpb.Message
			g.until("an answer", func() bool {
				select {
				case answer = <-seen:
					// What tells a leader of before of the later term has no index.
					return answer.GetFrom() == to && answer.GetTerm() == term && answer.GetIndex() > 0
				default:
					return false
				}
			})
			if answer.GetReject() || answer.GetIndex() < commit {
				t.Errorf("the answer is %v, want index %d or more", answer, commit)
			}
			for _, announced := range []int64{data.Size() - 1, data.Size() + 1} {
				data.Reset("what nobody needs")
				if err := g.nodes[to].ProcessSnapshot(context.Background(), snapshotTo(to, from, term, 30), data, announced); err == nil {
					t.Errorf("%d bytes were taken for the %d announced", data.Size(), announced)
				}
			}
		}
	})
}

// TestUnusedSnapshot: a snapshot that raft did not want is discarded when the state machine
// has passed it, also where that was while it was received.
func TestUnusedSnapshot(t *testing.T) {
	loops(t, func(t *testing.T, d drive) {
		g := streamGroup(t, d, mem.New(mem.Options{}), true, true)
		g.propose(1, 51)
		g.settled(50)
		lead := g.leader().Status()
		to := lead.ID%3 + 1
		n, disk := g.nodes[to], g.disks[to]
		// Of an earlier term, which raft ignores.
		receive := func(index uint64, data io.Reader, size int64) error {
			return n.ProcessSnapshot(context.Background(), snapshotTo(to, lead.ID, lead.Term-1, index), data, size)
		}
		late, pipe := io.Pipe()
		received := make(chan error, 1)
		at := n.Status().Applied + 10
		go func() { received <- receive(at, late, 4) }()
		if err := receive(at, strings.NewReader("data"), 4); err != nil {
			t.Fatal(err)
		}
		g.until("one is staged, the other is being received", func() bool { return disk.stages.Load() == 2 && disk.staged.Load() == 1 })
		g.propose(51, 71)
		g.until("the one that was staged is discarded", func() bool { return disk.staged.Load() == 0 })
		if _, err := pipe.Write([]byte("data")); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(pipe.Close(), <-received); err != nil {
			t.Fatal(err)
		}
		if left := disk.staged.Load(); left != 0 {
			t.Errorf("%d snapshots stay that were passed while they came", left)
		}
	})
}

// TestKVStream: the stream is the encoding, and restores the same state.
func TestKVStream(t *testing.T) {
	for _, values := range []int{0, 1, 700} {
		kv := node.NewKV(1000)
		kv.Fill(1, int64(values)*100, 100)
		want, err := kv.Snapshot()()
		if err != nil {
			t.Fatal(err)
		}
		data, size := kv.StreamSnapshot()
		if size != int64(len(want)) {
			t.Fatalf("%d values: a stream of %d bytes, want %d", values, size, len(want))
		}
		if err := iotest.TestReader(data, want); err != nil {
			t.Fatalf("%d values: %v", values, err)
		}
		other := node.NewKV(5)
		if err := other.RestoreStream(iotest.HalfReader(bytes.NewReader(want)), size); err != nil {
			t.Fatal(err)
		}
		if other.Hash() != kv.Hash() || other.Bytes() != kv.Bytes() || other.Keys() != kv.Keys() {
			t.Errorf("%d values: another state was restored", values)
		}
	}
}

func TestKVStreamDamage(t *testing.T) {
	kv := node.NewKV(20)
	kv.Fill(1, 200, 20)
	want, err := kv.Snapshot()()
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, b []byte, size int) {
		t.Helper()
		if node.NewKV(1).RestoreStream(bytes.NewReader(b), int64(size)) == nil {
			t.Errorf("%s: restored", what)
		}
	}
	for i := range want {
		flipped := bytes.Clone(want)
		flipped[i] ^= 4
		check(fmt.Sprintf("bit flipped in byte %d", i), flipped, len(want))
		check(fmt.Sprintf("cut to %d bytes", i), want[:i], len(want))
		check(fmt.Sprintf("%d bytes announced", i), want, i)
	}
	check("one byte too many", append(bytes.Clone(want), 0), len(want))
}

// BenchmarkKVStream is what the state machine itself costs a streamed snapshot:
// 64 MiB of values of 1 KiB, encoded and restored.
func BenchmarkKVStream(b *testing.B) {
	const state = 64 << 20
	kv := node.NewKV(state / 1024)
	kv.Fill(1, state, 1024)
	b.Run("create", func(b *testing.B) {
		b.SetBytes(state)
		for b.Loop() {
			data, _ := kv.StreamSnapshot()
			if _, err := io.Copy(io.Discard, data); err != nil {
				b.Fatal(err)
			}
		}
	})
	encoded, err := kv.Snapshot()()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("restore", func(b *testing.B) {
		b.SetBytes(state)
		other := node.NewKV(1)
		for b.Loop() {
			if err := other.RestoreStream(bytes.NewReader(encoded), int64(len(encoded))); err != nil {
				b.Fatal(err)
			}
		}
	})
}
