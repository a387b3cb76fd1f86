package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/pkg/v3/contention"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
)

// LoopKind names a loop.
type LoopKind string

const (
	// LoopReady is etcd's loop: one Ready at a time, saved before Advance.
	LoopReady LoopKind = "ready"
	// LoopAsync uses raft's AsyncStorageWrites: an append thread and an apply
	// thread, and several appends may share one Save.
	LoopAsync LoopKind = "async"
)

// RaftKind names a way that raft is driven.
type RaftKind string

const (
	// RaftNode is etcd's: raft.Node, which has a goroutine of its own.
	RaftNode RaftKind = "node"
	// RaftRawNode is raft.RawNode under a mutex: whoever has a message for raft
	// steps it, so that each takes one wake-up less on its way.
	RaftRawNode RaftKind = "rawnode"
)

// SnapshotMode names a way that snapshots go.
type SnapshotMode string

const (
	// SnapshotPlain hands the Data of a snapshot around as one slice, as raft
	// does: state machine, in-memory log, storage and message each hold one.
	SnapshotPlain SnapshotMode = "plain"
	// SnapshotStream keeps Data out of memory: it goes in chunks from the state
	// machine to the storage, from there to the peer's storage, and from there to
	// the peer's state machine. Raft sees snapshots without Data. A node whose
	// storage or state machine takes no streams goes the plain way; the nodes of
	// a cluster need not agree.
	SnapshotStream SnapshotMode = "stream"
)

// Config describes one node. The zero value of an optional field means its
// default.
type Config struct {
	ID uint64 // not 0
	// Peers are the voters of a new cluster, this node included. They are used
	// only where State is empty; otherwise membership is what was stored.
	Peers []uint64
	// Joining starts an empty node that waits to be added by a ConfChange.
	Joining bool

	// Storage and State are what a backend's Open returned. The node calls
	// Storage until Stop returns; closing it is up to the caller.
	Storage      backends.Storage
	State        backends.State
	StateMachine StateMachine
	Network      Network

	Loop           LoopKind      // default LoopReady
	Raft           RaftKind      // default RaftRawNode
	Tick           time.Duration // heartbeat interval; default 100 ms
	ElectionTicks  int           // default 10
	HeartbeatTicks int           // default 1

	// SnapshotEntries is how many entries are applied between two snapshots;
	// default 100,000 (etcd's default until 3.5; 3.6 has 10,000).
	SnapshotEntries uint64
	// Snapshots is how Data travels; default SnapshotStream.
	Snapshots SnapshotMode
	// CatchUpEntries is how many entries before a snapshot stay in memory for
	// slow followers; default 5,000 (etcd's).
	CatchUpEntries uint64
	// MaxBatch is the most proposals gathered into one MsgProp; 1 proposes one
	// by one. Default 512.
	MaxBatch int

	Trace  *Trace       // optional
	Logger *slog.Logger // default: discard
}

// etcd's values (etcdserver/raft.go): 1 MiB a message, and never more in flight
// than an eighth of rafthttp's buffer of 4096 messages.
const (
	maxSizePerMsg   = 1 << 20
	maxInflightMsgs = 4096 / 8
	// Bounds of the queues. Beyond them Propose and ReadIndex block the caller,
	// and the async loop waits for its append thread. Proposals wait in theirs
	// while there is no leader, and for raft to compute; what raft has taken is not
	// counted, see MaxUncommittedEntriesSize in startRaft.
	maxPendingProposals = 1 << 16
	maxPendingReads     = 1 << 16
	maxPendingAppends   = 1 << 10
	// applyQueue bounds the Readys that wait for the apply side; beyond it the
	// loop waits for a state machine that is slow.
	applyQueue = 64
)

// Trace holds optional hooks. They run on the node's own goroutines and must be
// quick; they may not call the node.
type Trace struct {
	// Committed is called by the loop when it hands entries to the apply side.
	Committed func(ents []*raftpb.Entry)
	// GiveWay is called by a goroutine of the node between two pieces of its work, which
	// may be short. Where it returns true, the goroutine lets others run: it asks for
	// somebody who keeps a schedule, and is late because this process has few Ps.
	GiveWay func() bool
	// Leader is called when the node learns of a leader (0: none) or of its own
	// role.
	Leader func(lead uint64, isLeader bool)
	// Snapshotted is called when a snapshot of the own state is durable and the
	// log is compacted.
	Snapshotted func(snap *raftpb.Snapshot)
}

// Status is a node's view of itself.
type Status struct {
	ID             uint64
	Lead           uint64 // 0: none
	Term           uint64
	HasLeader      bool
	IsLeader       bool
	LeaderChanges  int64 // leaders seen that differ from the one before
	LateHeartbeats int64 // heartbeats sent later than twice the interval
	Committed      uint64
	Applied        uint64
	Snapshot       uint64 // index of the newest durable one
}

// ErrStopped is returned by calls to a node that is stopping.
var ErrStopped = errors.New("node is stopped")

// logStore is what the loop needs of *raft.MemoryStorage: the in-memory copy of
// the log that raft reads.
type logStore interface {
	Append(ents []*raftpb.Entry) error
	ApplySnapshot(snap *raftpb.Snapshot) error
	CreateSnapshot(i uint64, cs *raftpb.ConfState, data []byte) (*raftpb.Snapshot, error)
	Compact(index uint64) error
	Term(index uint64) (uint64, error)
}

// Node is one member of a raft group.
type Node struct {
	cfg       Config
	raft      raft.Node
	raw       *rawNode        // the same, where it is driven as RaftRawNode; else nil
	readied   <-chan struct{} // of raw; nil, so that it is never ready, where there is none
	log       logStore
	transport Transport
	heartbeat *contention.TimeoutDetector // guarded by the loop

	ctx    context.Context
	cancel context.CancelFunc
	stopc  <-chan struct{} // ctx.Done()
	wg     sync.WaitGroup

	applyc     chan apply
	appends    *queue[*raftpb.Message] // async loop: for the append thread
	msgSnapc   chan *raftpb.Message
	readStatec chan raft.ReadState
	proposals  *queue[*raftpb.Entry]
	proposing  sync.Mutex // held by who takes proposals
	reads      *queue[func(error)]
	snapshots  snapshots
	stream     *streaming        // nil where snapshots go the plain way
	confState  *raftpb.ConfState // of the applied entries; the apply side's own

	isLeader       atomic.Bool
	lead           atomic.Uint64
	term           atomic.Uint64
	leaderChanges  atomic.Int64
	lateHeartbeats atomic.Int64
	committed      atomic.Uint64
	applied        appliedIndex
	removed        atomic.Pointer[map[uint64]struct{}] // members removed by a ConfChange

	failOnce sync.Once
	err      atomic.Pointer[error]
	failed   chan struct{} // closed once err is there and nothing more is taken
}

// Start joins the network and runs the node. A node with an empty State starts a
// cluster with cfg.Peers; any other restarts from what was stored, replaying the
// entries that are committed.
func Start(cfg Config) (*Node, error) {
	if err := cfg.fill(); err != nil {
		return nil, fmt.Errorf("start node %d: %w", cfg.ID, err)
	}
	n := &Node{
		cfg:        cfg,
		heartbeat:  contention.NewTimeoutDetector(2 * cfg.Tick * time.Duration(cfg.HeartbeatTicks)),
		applyc:     make(chan apply, applyQueue),
		msgSnapc:   make(chan *raftpb.Message, maxInFlightSnaps),
		readStatec: make(chan raft.ReadState, 1),
		failed:     make(chan struct{}),
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.stopc = n.ctx.Done()
	n.proposals = newQueue[*raftpb.Entry](maxPendingProposals)
	n.reads = newQueue[func(error)](maxPendingReads)
	n.appends = newQueue[*raftpb.Message](maxPendingAppends)
	n.snapshots.requests = make(chan snapshotRequest)
	n.applied.init()
	n.chooseSnapshots()
	isNew := cfg.State.Empty() && !cfg.Joining
	mem, err := n.load()
	if err != nil {
		n.cancel()
		return nil, fmt.Errorf("start node %d: %w", cfg.ID, err)
	}
	n.log = mem
	if err := n.startRaft(mem, isNew); err != nil {
		n.cancel()
		return nil, fmt.Errorf("start node %d: %w", cfg.ID, err)
	}
	n.transport, err = cfg.Network.Join(cfg.ID, n)
	if err != nil {
		n.cancel()
		n.raft.Stop()
		return nil, fmt.Errorf("start node %d: join the network: %w", cfg.ID, err)
	}
	n.goRun(n.run)
	n.goRun(n.applyLoop)
	n.goRun(n.proposeLoop)
	n.goRun(n.readLoop)
	n.goRun(n.sendSnapshots)
	if cfg.Loop == LoopAsync {
		n.goRun(n.appendLoop)
	}
	return n, nil
}

// giveWay lets others run where they ask for it.
func (n *Node) giveWay() {
	if n.othersAsk() {
		runtime.Gosched()
	}
}

func (n *Node) othersAsk() bool { return n.cfg.Trace.GiveWay != nil && n.cfg.Trace.GiveWay() }

func (n *Node) goRun(f func()) {
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		f()
	}()
}

// fill checks cfg and applies the defaults, in one place.
func (cfg *Config) fill() error {
	set := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	set(&cfg.ElectionTicks, 10)
	set(&cfg.HeartbeatTicks, 1)
	set(&cfg.MaxBatch, 512)
	if cfg.Loop == "" {
		cfg.Loop = LoopReady
	}
	if cfg.Raft == "" {
		cfg.Raft = RaftRawNode
	}
	if cfg.Tick == 0 {
		cfg.Tick = 100 * time.Millisecond
	}
	if cfg.SnapshotEntries == 0 {
		cfg.SnapshotEntries = 100_000
	}
	if cfg.CatchUpEntries == 0 {
		cfg.CatchUpEntries = 5_000
	}
	if cfg.Snapshots == "" {
		cfg.Snapshots = SnapshotStream
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Trace == nil {
		cfg.Trace = &Trace{}
	}
	switch {
	case cfg.ID == 0:
		return errors.New("ID is 0")
	case cfg.Storage == nil || cfg.StateMachine == nil || cfg.Network == nil:
		return errors.New("one of Storage, StateMachine and Network is missing")
	case cfg.State.Empty() && !cfg.Joining && !slices.Contains(cfg.Peers, cfg.ID):
		return fmt.Errorf("a new node must be one of its Peers %v", cfg.Peers)
	case cfg.Loop != LoopReady && cfg.Loop != LoopAsync:
		return fmt.Errorf("unknown loop %q; known: %s, %s", cfg.Loop, LoopReady, LoopAsync)
	case cfg.Raft != RaftNode && cfg.Raft != RaftRawNode:
		return fmt.Errorf("unknown way to drive raft %q; known: %s, %s", cfg.Raft, RaftNode, RaftRawNode)
	case cfg.Snapshots != SnapshotPlain && cfg.Snapshots != SnapshotStream:
		return fmt.Errorf("unknown way of snapshots %q; known: %s, %s", cfg.Snapshots, SnapshotStream, SnapshotPlain)
	case cfg.Tick < 0 || cfg.HeartbeatTicks < 1 || cfg.ElectionTicks <= cfg.HeartbeatTicks:
		return fmt.Errorf("tick %v, election after %d ticks, heartbeat every %d: want election > heartbeat ≥ 1", cfg.Tick, cfg.ElectionTicks, cfg.HeartbeatTicks)
	case cfg.MaxBatch < 1:
		return fmt.Errorf("MaxBatch %d: want 1 or more", cfg.MaxBatch)
	}
	return nil
}

// load fills raft's in-memory log and the state machine from what was stored.
func (n *Node) load() (*raft.MemoryStorage, error) {
	mem := raft.NewMemoryStorage()
	st := n.cfg.State
	if snap := st.Snapshot; snap != nil {
		kept := snap
		if n.stream != nil { // who needs Data asks the storage
			kept = &raftpb.Snapshot{Metadata: snap.GetMetadata()}
		}
		if err := mem.ApplySnapshot(kept); err != nil {
			return nil, fmt.Errorf("load snapshot %d: %w", snap.GetMetadata().GetIndex(), err)
		}
		if err := n.cfg.StateMachine.Restore(snap.GetData()); err != nil {
			return nil, fmt.Errorf("load snapshot %d: %w", snap.GetMetadata().GetIndex(), err)
		}
		n.snapshots.newest.Store(snap.GetMetadata().GetIndex())
		n.snapshots.started = snap.GetMetadata().GetIndex()
		n.confState = snap.GetMetadata().GetConfState()
		n.applied.set(snap.GetMetadata().GetIndex())
		n.committed.Store(snap.GetMetadata().GetIndex())
	}
	if st.HardState != nil && !raft.IsEmptyHardState(st.HardState) {
		if err := mem.SetHardState(st.HardState); err != nil {
			return nil, fmt.Errorf("load hard state: %w", err)
		}
	}
	if err := mem.Append(st.Entries); err != nil {
		return nil, fmt.Errorf("load %d entries: %w", len(st.Entries), err)
	}
	n.cfg.State = backends.State{} // keep nothing that compaction is to free
	return mem, nil
}

// startRaft starts raft: a new cluster, or one that was stored.
func (n *Node) startRaft(mem *raft.MemoryStorage, isNew bool) (err error) {
	rc := &raft.Config{
		ID:                 n.cfg.ID,
		ElectionTick:       n.cfg.ElectionTicks,
		HeartbeatTick:      n.cfg.HeartbeatTicks,
		Storage:            mem,
		Applied:            n.applied.get(),
		AsyncStorageWrites: n.cfg.Loop == LoopAsync,
		MaxSizePerMsg:      maxSizePerMsg,
		MaxInflightMsgs:    maxInflightMsgs,
		CheckQuorum:        true,
		PreVote:            true,
		Logger:             raftLogger{n.cfg.Logger.With("node", n.cfg.ID)},
		// No limit, as in etcd: what raft holds while a Save stands is bounded by who
		// proposes (a load by its clients, or by load.Config.MaxInFlight; what timed out
		// there stays here until it is applied). A limit would change what is measured.
		// Operations that meet a stalled disk are the slowest there are, and an open loop
		// counts them from when they were intended. Raft drops what is beyond its limit:
		// they would end at their timeout, not when the disk is back. Refused, they would
		// be errors and no latencies; made to wait in Propose, they would be lag, and
		// the generator would seem to be late. (etcd's ErrTooManyRequests bounds what is
		// committed and not applied, which a Save that stands does not let grow.)
		MaxUncommittedEntriesSize: 0,
	}
	var peers []raft.Peer
	if isNew {
		for _, id := range n.cfg.Peers {
			peers = append(peers, raft.Peer{ID: id})
		}
	}
	switch {
	case n.cfg.Raft == RaftRawNode:
		if n.raw, err = startRawNode(rc, peers); err != nil {
			return fmt.Errorf("start raft: %w", err)
		}
		n.raft, n.readied = n.raw, n.raw.readied
	case isNew:
		n.raft = raft.StartNode(rc, peers)
	default:
		n.raft = raft.RestartNode(rc)
	}
	return nil
}

// Stop ends the node and returns when none of its goroutines is left. What was
// acknowledged is durable; nothing else is finished.
func (n *Node) Stop() {
	n.cancel()
	_ = n.transport.Close() // a transport that cannot close has still stopped delivering
	n.raft.Stop()
	n.applied.stop()
	n.wg.Wait()
	n.dropStreams()
}

// fail stops the node with the first error of its storage or state machine.
func (n *Node) fail(err error) {
	n.failOnce.Do(func() {
		err := fmt.Errorf("node %d: %w", n.cfg.ID, err)
		n.cfg.Logger.Error("node stops", "node", n.cfg.ID, "error", err)
		n.err.Store(&err) // first: who is refused can ask why
		n.cancel()
		n.applied.stop() // nothing more is applied
		close(n.failed)
	})
}

// Failed is closed when the node stopped because of an error; see [Node.Err].
// From then on proposals, reads and messages are refused with [ErrStopped].
func (n *Node) Failed() <-chan struct{} { return n.failed }

// Err is why the node stopped by itself, nil while it has not.
func (n *Node) Err() error {
	if err := n.err.Load(); err != nil {
		return *err
	}
	return nil
}

// Status returns the node's view of itself; cheap, from any goroutine.
func (n *Node) Status() Status {
	lead := n.lead.Load()
	return Status{
		ID: n.cfg.ID, Lead: lead, HasLeader: lead != raft.None, IsLeader: n.isLeader.Load(), Term: n.term.Load(),
		LeaderChanges: n.leaderChanges.Load(), LateHeartbeats: n.lateHeartbeats.Load(),
		Committed: n.committed.Load(), Applied: n.applied.get(), Snapshot: n.snapshots.newest.Load(),
	}
}

// Transport is what the node's Join returned, for those who ask it for counters.
func (n *Node) Transport() Transport { return n.transport }

// Campaign asks the node to become leader.
func (n *Node) Campaign(ctx context.Context) error { return n.raft.Campaign(ctx) }

// TransferLeadership asks raft to hand leadership to another node.
func (n *Node) TransferLeadership(ctx context.Context, to uint64) {
	n.raft.TransferLeadership(ctx, n.cfg.ID, to)
}

// ProposeConfChange proposes a change of membership. Like any proposal it may be
// dropped.
func (n *Node) ProposeConfChange(ctx context.Context, cc raftpb.ConfChangeI) error {
	return n.raft.ProposeConfChange(ctx, cc)
}

// Process implements [Receiver].
func (n *Node) Process(ctx context.Context, m *raftpb.Message) error {
	if n.isRemoved(m.GetFrom()) {
		return fmt.Errorf("node %d: message from removed member %d", n.cfg.ID, m.GetFrom())
	}
	select {
	case <-n.stopc:
		return ErrStopped
	default:
	}
	err := n.raft.Step(ctx, m)
	n.giveWay()
	return err
}

// ReportUnreachable implements [Receiver].
func (n *Node) ReportUnreachable(id uint64) { n.raft.ReportUnreachable(id) }

// ReportSnapshot implements [Receiver].
func (n *Node) ReportSnapshot(id uint64, status raft.SnapshotStatus) {
	n.raft.ReportSnapshot(id, status)
}
