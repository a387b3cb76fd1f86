package torture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/faulty"
	"github.com/raftbench/raftbench/node/transport/mem"
)

const (
	tick = 10 * time.Millisecond // elections after 100 to 200 ms
	// patience is how long a cluster whose faults are healed may take to work again.
	patience = 3 * time.Minute
)

// life is a node from its start to its kill.
type life struct {
	id   uint64
	n    *node.Node
	regs *registers
}

// cluster is the nodes of a round.
type cluster struct {
	drive   drive
	disks   *disks
	net     *faulty.Network
	leaders *leaders
	ids     []uint64

	mu    sync.Mutex
	lives map[uint64]*life // those that run
	errs  []error          // of nodes that stopped by themselves
}

func newCluster(r round) *cluster {
	c := &cluster{
		drive: r.drive, disks: newDisks(r.nodes, r.seed, r.broken == lyingDisks), net: faulty.Wrap(mem.New(mem.Options{}), r.seed),
		leaders: &leaders{of: map[uint64]uint64{}}, lives: map[uint64]*life{},
	}
	for id := range c.disks.all {
		c.ids = append(c.ids, id)
	}
	slices.Sort(c.ids)
	return c
}

// start begins the next life of a node that does not run.
func (c *cluster) start(id uint64) error {
	store, st, err := c.disks.open(id)
	if err != nil {
		return fmt.Errorf("node %d: open: %w", id, err)
	}
	l := &life{id: id, regs: newRegisters()}
	l.n, err = node.Start(node.Config{
		ID: id, Peers: c.ids, Storage: store, State: st, StateMachine: l.regs, Network: &watched{c.net, c.leaders},
		Loop: c.drive.loop, Raft: c.drive.raft, Tick: tick, SnapshotEntries: 80, CatchUpEntries: 20,
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lives[id] = l
	return nil
}

// startAll starts every node that does not run.
func (c *cluster) startAll() error {
	var errs []error
	for _, id := range c.ids {
		if c.life(id) == nil {
			errs = append(errs, c.start(id))
		}
	}
	return errors.Join(errs...)
}

func (c *cluster) life(id uint64) *life {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lives[id]
}

// running are the nodes that run, in order.
func (c *cluster) running() []*life {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*life
	for _, id := range c.ids {
		if l := c.lives[id]; l != nil {
			out = append(out, l)
		}
	}
	return out
}

// kill ends nodes as a power cut does: first the disks, then the rest.
func (c *cluster) kill(ids ...uint64) {
	c.disks.cut(ids)
	for _, id := range ids {
		c.mu.Lock()
		l := c.lives[id]
		delete(c.lives, id)
		c.mu.Unlock()
		if l == nil {
			continue
		}
		l.n.Stop()
		if err := l.n.Err(); err != nil && !errors.Is(err, errKilled) {
			c.mu.Lock()
			c.errs = append(c.errs, err)
			c.mu.Unlock()
		}
	}
}

// leader is who says so in the highest term, nil if nobody does.
func (c *cluster) leader() *life {
	var lead *life
	var term uint64
	for _, l := range c.running() {
		if st := l.n.Status(); st.IsLeader && st.Term >= term {
			lead, term = l, st.Term
		}
	}
	return lead
}

// close stops what runs and returns what stopped nodes during the round.
func (c *cluster) close() error {
	c.kill(c.ids...)
	return errors.Join(append(c.errs, c.net.Close())...)
}

// watchStatus notes who leads by the nodes' own word.
func (c *cluster) watchStatus(ctx context.Context) {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		for _, l := range c.running() {
			// A node takes up its role only in the term that it has stored, and gives
			// it up before it stores another: with the same term before and after, the
			// role is one of that term.
			if before, now := l.n.Status(), l.n.Status(); now.IsLeader && before.Term == now.Term {
				c.leaders.note(now.Term, l.id)
			}
		}
	}
}

// leaders notes who led in each term.
type leaders struct {
	mu   sync.Mutex
	of   map[uint64]uint64 // term → node
	errs []error
}

func (l *leaders) note(term, id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if other, known := l.of[term]; known && other != id {
		l.errs = append(l.errs, fmt.Errorf("%w %d: %d and %d", errTwoLeaders, term, other, id))
	}
	l.of[term] = id
}

func (l *leaders) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.errs) == 0 {
		return nil
	}
	return l.errs[0]
}

func (l *leaders) terms() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.of)
}

// watched notes who leads by what nodes send: only a leader sends entries,
// snapshots and heartbeats.
type watched struct {
	node.Network
	leaders *leaders
}

func (w *watched) Join(id uint64, r node.Receiver) (node.Transport, error) {
	t, err := w.Network.Join(id, r)
	return &watchedTransport{t, w.leaders, id}, err
}

type watchedTransport struct {
	node.Transport
	leaders *leaders
	id      uint64
}

func (t *watchedTransport) Send(msgs []*raftpb.Message) {
	for _, m := range msgs {
		switch m.GetType() {
		case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap:
			t.leaders.note(m.GetTerm(), t.id)
		}
	}
	t.Transport.Send(msgs)
}
