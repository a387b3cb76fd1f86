// Package faulty makes the network of a cluster misbehave: delay, jitter, loss,
// bandwidth, stalls and partitions, one-way ones too, for each link on its own and
// changed while it runs, by calls or by a timeline of text.
//
// It wraps any node.Network. What a fault means:
//
//   - cut: what is sent from then on is dropped, what waits in a delay line is
//     dropped, and what the wrapped transport has under way is refused when it
//     arrives, all of it reported as unreachable. Only a message that the node's
//     Process has already been given gets through. What was under way at a cut and
//     arrives after a heal is delivered, as a network might.
//   - stall: messages wait, to be delivered all at once by the heal; what is then too
//     much for the wrapped transport's queues it drops.
//   - delay: each message arrives that much later, give or take the jitter, in
//     order. This is the delay of one direction: a round trip has two.
//   - loss: the given share of messages disappears. Nobody is told, except raft of
//     a MsgSnap, which it would wait for. The link is one of messages, not of
//     packets: nothing is sent again.
//   - rate: messages of the given number of bytes a second pass, one after the
//     other; a message counts its payload and 64 bytes around it.
//
// Reports to the sender (unreachable, how a snapshot ended) are what its side knows
// and are not subject to the faults of the way back.
//
// Lost messages and jitters are drawn from the seed for each link apart: the same
// messages in the same order meet the same fate.
//
// At most 65536 messages or 512 MiB wait in the delay line of a link; what does not
// fit is dropped and reported. While no fault was ever applied, messages pass straight
// through.
package faulty

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/node"
)

// Bounds of what waits on one link.
const (
	maxMessages = 1 << 16
	maxBytes    = 512 << 20
)

// overheadBytes is what a message counts beside its payload where a rate is set.
const overheadBytes = 64

// Network is a network with faults.
type Network struct {
	inner node.Network
	seed  int64

	used atomic.Bool // a fault was applied at some time

	mu       sync.Mutex
	links    map[pair]*link
	standing []standing // since the last heal of all links, in order
	nodes    map[uint64]*transport
}

var _ node.Network = (*Network)(nil)

type pair struct{ from, to uint64 }

// standing is a fault as it was applied; links that are first used later get it too.
type standing struct {
	fault  Fault
	leader uint64
}

// Wrap returns a network without faults that uses inner, which is closed with it.
func Wrap(inner node.Network, seed int64) *Network {
	return &Network{inner: inner, seed: seed, links: make(map[pair]*link), nodes: make(map[uint64]*transport)}
}

// Join implements node.Network.
func (n *Network) Join(id uint64, r node.Receiver) (node.Transport, error) {
	inner, err := n.inner.Join(id, &receiver{Receiver: r, net: n, id: id})
	if err != nil {
		return nil, err
	}
	t := newTransport(n, id, r, inner)
	n.mu.Lock()
	n.nodes[id] = t
	n.mu.Unlock()
	if s, ok := inner.(node.StatsReporter); ok {
		return &countingTransport{t, s}, nil
	}
	return t, nil
}

// Close implements node.Network.
func (n *Network) Close() error { return n.inner.Close() }

// Settled tells transporttest whether the wrapped network's link is settled.
func (n *Network) Settled(from, to uint64) bool {
	s, ok := n.inner.(interface{ Settled(from, to uint64) bool })
	return !ok || s.Settled(from, to)
}

// reportUnreachable tells a node of this process about a peer.
func (n *Network) reportUnreachable(to, peer uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t := n.nodes[to]; t != nil {
		t.reports.Unreachable(peer)
	}
}

func (n *Network) leave(t *transport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nodes[t.id] == t {
		delete(n.nodes, t.id)
	}
}

// Cut drops all messages on the links.
func (n *Network) Cut(links ...LinkSet) { n.Apply(Fault{Kind: Cut, Links: links}, 0) }

// Stall holds all messages on the links.
func (n *Network) Stall(links ...LinkSet) { n.Apply(Fault{Kind: Stall, Links: links}, 0) }

// Heal takes all faults from the links; without links, from all.
func (n *Network) Heal(links ...LinkSet) { n.Apply(Fault{Kind: Heal, Links: links}, 0) }

// SetDelay makes messages on the links arrive later, by delay ± up to jitter.
func (n *Network) SetDelay(delay, jitter time.Duration, links ...LinkSet) {
	n.Apply(Fault{Kind: Delay, Delay: delay, Jitter: jitter, Links: links}, 0)
}

// SetLoss makes the given share of messages on the links, 0 to 1, disappear.
func (n *Network) SetLoss(share float64, links ...LinkSet) {
	n.Apply(Fault{Kind: Loss, Loss: share, Links: links}, 0)
}

// SetRate limits each of the links to a number of bytes a second.
func (n *Network) SetRate(bytesPerSecond int64, links ...LinkSet) {
	n.Apply(Fault{Kind: Rate, Rate: bytesPerSecond, Links: links}, 0)
}

// Apply changes links, those between nodes that are yet to join included. A fault
// without links changes all. leader stands for "leader" in the fault's nodes; 0 for
// none. When Apply returns, a cut is in force. Of faults of nodes nothing is done.
func (n *Network) Apply(f Fault, leader uint64) {
	if f.OfNodes() {
		return
	}
	n.used.Store(true)
	// Senders look links up, so they must not be waited for with n.mu held.
	for _, t := range n.record(f, leader) {
		t.changed()
	}
}

// record changes the links and returns the nodes that must see it.
func (n *Network) record(f Fault, leader uint64) []*transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	if f.Kind == Heal && len(f.Links) == 0 {
		n.standing = nil
	} else {
		n.standing = append(n.standing, standing{f, leader})
	}
	for p, l := range n.links {
		if f.affects(p.from, p.to, leader) {
			l.apply(f)
		}
	}
	return slices.Collect(maps.Values(n.nodes))
}

// link returns a link's state, with all faults that stand.
func (n *Network) link(from, to uint64) *link {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := pair{from, to}
	l := n.links[p]
	if l == nil {
		// Any function of the three that differs where they differ would do.
		l = &link{rng: rand.New(rand.NewPCG(uint64(n.seed), from<<32^to))}
		for _, s := range n.standing {
			if s.fault.affects(from, to, s.leader) {
				l.apply(s.fault)
			}
		}
		n.links[p] = l
	}
	return l
}

// Play applies a timeline's events, counted from start, and returns after the last
// one, or when ctx ends with its error. Where an event needs a leader, leader is asked
// until it is not 0. applied, if not nil, is told of each event and when after start it
// took effect.
func (n *Network) Play(ctx context.Context, tl Timeline, start time.Time, leader func() uint64, applied func(e Event, at time.Duration)) error {
	for _, e := range tl {
		if err := sleep(ctx, time.Until(start.Add(e.At))); err != nil {
			return fmt.Errorf("before %q: %w", e, err)
		}
		var id uint64
		for e.Fault.NeedsLeader() {
			if id = leader(); id != 0 {
				break
			}
			if err := sleep(ctx, time.Millisecond); err != nil {
				return fmt.Errorf("waiting for a leader for %q: %w", e, err)
			}
		}
		n.Apply(e.Fault, id)
		if applied != nil {
			applied(e, time.Since(start))
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// conditions are what faults have made of a link.
type conditions struct {
	cut, stalled  bool
	delay, jitter time.Duration
	loss          float64
	rate          int64 // bytes a second; 0: unlimited
}

// link is the state of a link, which outlives the lives of its nodes.
type link struct {
	mu  sync.Mutex
	now conditions
	rng *rand.Rand
}

func (l *link) apply(f Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch f.Kind {
	case Cut:
		l.now.cut = true
	case Stall:
		l.now.stalled = true
	case Delay:
		l.now.delay, l.now.jitter = f.Delay, f.Jitter
	case Loss:
		l.now.loss = f.Loss
	case Rate:
		l.now.rate = f.Rate
	case Heal:
		l.now = conditions{}
	default:
		panic(fmt.Sprintf("faulty: unknown kind of fault %q", f.Kind))
	}
}

func (l *link) conditions() conditions {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// draw returns the conditions for one more message, whether it is lost, and its
// jitter.
func (l *link) draw() (c conditions, lost bool, jitter time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c = l.now
	if c.loss > 0 {
		lost = l.rng.Float64() < c.loss
	}
	if c.jitter > 0 {
		jitter = time.Duration(l.rng.Int64N(2*int64(c.jitter)+1)) - c.jitter
	}
	return c, lost, jitter
}

// receiver refuses what arrives over a link that is cut.
type receiver struct {
	node.Receiver
	net *Network
	id  uint64
}

// Process implements node.Receiver.
func (r *receiver) Process(ctx context.Context, m *raftpb.Message) error {
	if r.net.used.Load() && r.net.link(m.GetFrom(), r.id).conditions().cut {
		if m.GetType() != raftpb.MsgSnap { // of which the wrapped transport reports the failure
			r.net.reportUnreachable(m.GetFrom(), r.id)
		}
		return fmt.Errorf("faulty: the link from %d to %d is cut", m.GetFrom(), r.id)
	}
	return r.Receiver.Process(ctx, m)
}
