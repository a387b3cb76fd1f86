package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/node"
)

// cluster is the nodes of one run in this process: all, or the one of a [Member].
type cluster struct {
	syncs    syncWatch
	one      One
	o        *observer
	net      *observedNetwork
	payloads *load.Payloads
	members  []*member
	logger   *slog.Logger
	slow     slowDisk
	backlog  []int64 // operations in flight at the end of each of the last windows

	before, after *usageNow       // at both ends of the measured time
	measuring     func(bool)      // hears of them; may be nil
	faulted       func(LinkFault) // hears of faults of links; may be nil
	elsewhere     bool            // the other nodes are; which one acknowledges is told

	faults *faultPlay // nil: none
	past   []*member  // lives of nodes that a fault has ended
	mu     sync.Mutex // held to change members, or one's down, while others may read them

	// open opens the storage of a node, of this group.
	open func(m *member) (backends.Storage, backends.State, error)
	// candidate is the member that stands for election as soon as it may.
	candidate int
	// groups are all raft groups of the run where there are several, this one, which
	// then stands for all of them, first.
	groups *groupSet
}

// every is the clusters that this one stands for.
func (c *cluster) every() []*cluster {
	if c.groups != nil {
		return c.groups.clusters
	}
	return []*cluster{c}
}

// elections is how many were won by nodes of this process so far, in all groups.
func (c *cluster) elections() (n int64) {
	for _, g := range c.every() {
		n += g.o.elections.Load()
	}
	return n
}

// member is one node with what is under and above it.
type member struct {
	id      uint64
	dir     string // of this group's storage; of the host's where groups share one
	hostDir string // of everything on this node
	storage *observedStorage
	state   *observedState
	node    *node.Node
	opened  time.Duration // how long Open took
	chosen  map[string]string
	down    bool // a fault has stopped node and closed storage
}

// pollEvery is how often the harness looks for a condition. It is far below what
// is measured by it (elections, catching up), and costs next to nothing.
const pollEvery = 500 * time.Microsecond

// ElectionDeadline bounds the wait for a leader.
const ElectionDeadline = time.Minute

// startCluster opens and starts every node and waits for a leader. What was
// started is stopped again after an error.
func startCluster(ctx context.Context, one One, payloads *load.Payloads) (*cluster, error) {
	inner, err := one.Networks[one.Transport]()
	if err != nil {
		return nil, fmt.Errorf("make the %s network: %w", one.Transport, err)
	}
	c := newCluster(one, payloads, nil, &tally{})
	if c.faults, inner, err = newFaultPlay(c, inner); err != nil {
		return nil, err
	}
	c.net.Network = inner
	c.slow.SlowDisk, c.slow.o = one.SlowDisk, c.o
	for id := uint64(1); id <= uint64(one.Nodes); id++ {
		dir := one.nodeDir(id)
		if err := c.addMember(&member{id: id, dir: dir, hostDir: dir}); err != nil {
			return nil, errors.Join(err, c.stop())
		}
	}
	c.watchSyncs()
	if err := c.elect(ctx); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	c.watch()
	return c, nil
}

func newCluster(one One, payloads *load.Payloads, net node.Network, t *tally) *cluster {
	o := &observer{base: time.Now(), tally: t, watch: one.Watch, off: one.NoRecorders}
	c := &cluster{one: one, o: o, payloads: payloads, net: &observedNetwork{Network: net, o: o}, logger: slog.New(slog.DiscardHandler)}
	c.open = func(m *member) (backends.Storage, backends.State, error) {
		return one.Backend.Open(backends.Options{Dir: m.dir, OnSync: c.syncs.onSync(m.id)})
	}
	return c
}

// nodeDir is the directory of a node's data.
func (o One) nodeDir(id uint64) string { return filepath.Join(o.RunDir, fmt.Sprintf("node-%d", id)) }

func (c *cluster) addMember(m *member) error {
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return fmt.Errorf("make the node's directory: %w", err)
	}
	if err := c.startMember(m); err != nil {
		return err
	}
	c.members = append(c.members, m)
	return nil
}

// startMember opens a node's storage and starts it.
func (c *cluster) startMember(m *member) error {
	start := time.Now()
	storage, st, err := c.open(m)
	if err != nil {
		return fmt.Errorf("open %s of node %d in %s: %w", c.one.Backend.Label(), m.id, m.dir, err)
	}
	m.opened = time.Since(start)
	m.chosen = chosenBy(storage)
	if c.one.SlowDisk.Role != "" {
		storage = &slowedStorage{Storage: storage, disk: &c.slow, node: m.id}
	}
	m.storage = observeStorage(c.o, m, storage)
	keys := c.one.stateKeys()
	if c.one.StateSize > 0 {
		keys = max(keys, int(c.one.StateSize)/c.one.meanValue()+1)
	}
	m.state = &observedState{KV: node.NewKV(keys), o: c.o, m: m}
	if c.one.StateSize > 0 && st.Snapshot == nil {
		m.state.Fill(c.one.Seed, c.one.StateSize, c.one.meanValue())
	}
	peers := make([]uint64, c.one.Nodes)
	for i := range peers {
		peers[i] = uint64(i + 1)
	}
	m.node, err = node.Start(node.Config{
		ID: m.id, Peers: peers, Storage: m.storage.streamer(), State: st, StateMachine: m.state, Network: c.net,
		Loop: c.one.Loop, Raft: c.one.Raft, MaxBatch: c.one.Batch, SnapshotEntries: c.one.SnapshotEntries, CatchUpEntries: c.one.CatchUpEntries,
		Snapshots: c.one.Snapshots, Logger: c.logger,
		Trace: &node.Trace{
			Committed: m.state.committed,
			GiveWay:   c.o.generatorIsLate,
			Leader: func(_ uint64, isLeader bool) {
				if !isLeader {
					return
				}
				c.o.elections.Add(1)
				if !c.elsewhere {
					c.o.proposer.Store(m)
					c.o.elected(m.id)
				}
			},
		},
	})
	if err != nil {
		return errors.Join(err, storage.Close())
	}
	return nil
}

func (o One) meanValue() int {
	if o.ValueSizeMax > o.ValueSize {
		return (o.ValueSize + o.ValueSizeMax) / 2
	}
	return o.ValueSize
}

// elect waits for a leader that has applied its own first entry. The candidate
// stands for election as soon as it may, to save the time-out.
func (c *cluster) elect(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, ElectionDeadline,
		fmt.Errorf("no leader among %d nodes within %v", c.one.Nodes, ElectionDeadline))
	defer cancel()
	first := c.members[c.candidate].node
	campaigned := false
	return c.wait(ctx, func() bool {
		if st := first.Status(); !campaigned && st.Applied >= uint64(c.one.Nodes) {
			campaigned = first.Campaign(ctx) == nil
		}
		m := c.o.proposer.Load()
		if m == nil || !m.node.Status().IsLeader {
			return false
		}
		return m.node.Status().Applied > uint64(c.one.Nodes)
	})
}

// wait polls until done, a node fails, or ctx ends.
func (c *cluster) wait(ctx context.Context, done func() bool) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
			if err := c.failed(); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// failed is the first error that stopped a node.
func (c *cluster) failed() error {
	for _, g := range c.every() {
		for _, m := range g.members {
			if err := m.node.Err(); err != nil {
				return fmt.Errorf("%s: %w", c.one.Backend.Label(), err)
			}
		}
	}
	return nil
}

// Propose implements load.Target.
func (c *cluster) Propose(ctx context.Context, payloads [][]byte) error {
	return c.tolerant(c.o.proposer.Load().node.Propose(ctx, payloads...))
}

// Enqueue implements load.Target.
func (c *cluster) Enqueue(ctx context.Context, payloads [][]byte) error {
	return c.tolerant(c.o.proposer.Load().node.Enqueue(ctx, payloads...))
}

// Read implements load.Target.
func (c *cluster) Read(ctx context.Context, ids []uint64) error {
	batch := make([]load.Done, len(ids))
	for i, id := range ids {
		batch[i].ID = id
	}
	return c.tolerant(c.o.proposer.Load().node.ReadIndex(ctx, func(err error) {
		now := c.o.now()
		for i := range batch {
			batch[i].Applied, batch[i].Err = now, err
		}
		if err == nil {
			c.o.reads.Add(int64(len(batch)))
		}
		if g := c.o.generator.Load(); g != nil {
			g.Done(batch)
		}
	}))
}

// drain waits until every node has applied what the acknowledging one has, and
// returns those that did not within the deadline.
func (c *cluster) drain(ctx context.Context, deadline time.Duration) (behind []uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	lag := func(m *member) bool {
		return m.node.Status().Applied < c.o.proposer.Load().node.Status().Applied
	}
	err = c.wait(ctx, func() bool {
		for _, m := range c.members {
			if lag(m) {
				return false
			}
		}
		return true
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	for _, m := range c.members {
		if lag(m) {
			behind = append(behind, m.id)
		}
	}
	return behind, nil
}

// stop ends every node and closes its storage.
func (c *cluster) stop() error {
	errs := []error{c.syncs.stop()}
	for _, m := range c.members {
		if m.node != nil && !m.down {
			m.node.Stop()
		}
	}
	for _, m := range c.members {
		if m.storage != nil && !m.down {
			if err := m.storage.Close(); err != nil {
				errs = append(errs, fmt.Errorf("close %s of node %d: %w", c.one.Backend.Label(), m.id, err))
			}
		}
	}
	if err := c.net.Close(); err != nil {
		errs = append(errs, fmt.Errorf("close the network: %w", err))
	}
	return errors.Join(errs...)
}

// others are the members besides one.
func (c *cluster) others(than *member) []*member {
	var out []*member
	for _, m := range c.members {
		if m != than {
			out = append(out, m)
		}
	}
	return out
}

var _ load.Target = (*cluster)(nil)

// entryBytes is the payload of entries, for restart figures.
func entryBytes(ents []*raftpb.Entry) (n int64) {
	for _, e := range ents {
		n += int64(len(e.GetData()))
	}
	return n
}
