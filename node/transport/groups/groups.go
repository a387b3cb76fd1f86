// Package groups carries the messages of many raft groups over one network, as
// CockroachDB and TiKV do: a host joins once, and what its groups send to the same
// peer at the same time travels together.
//
// It wraps any node.Network whose messages arrive whole: each of its messages is a
// carrier that holds those of several groups in Responses, which raft uses only
// between a node and its own storage, and their groups in Context. A goroutine of
// the host takes what has gathered for all peers and sends it, while more gathers;
// so a message costs one more hand-over between goroutines, and shares everything
// else.
//
// What differs from a network of one group's own:
//
//   - The groups of a host share the bounds of the wrapped network's queues, and
//     each peer's outbox here (16384 messages, 512 MiB). What does not fit is
//     dropped and reported to its group; what the wrapped network drops is reported
//     to all groups of the host, which costs each a probe.
//   - Messages of all groups from one peer are processed one after the other, which
//     is a few microseconds each: raft only queues them. Proposals, which raft holds
//     back while there is no leader, wait in a lane of each group's own.
//   - Of each peer, one snapshot is under way at a time, and others wait: the wrapped
//     network says how a snapshot to a peer ended, and not whose it was.
//   - A message for a group that is not there is dropped. Its sender is told only
//     where nothing in the carrier could be delivered.
package groups

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/internal/isolate"
)

// Bounds of what waits on a host.
const (
	maxMessages = 1 << 14   // for each peer
	maxBytes    = 512 << 20 // of payload, for each peer; one message more if it is alone
	// carrierBytes ends a carrier, so that none is much larger than raft's own
	// messages (etcd's maxSizePerMsg).
	carrierBytes = 1 << 20
	// maxProposals wait for each group; raft's proposers wait for none of them.
	maxProposals = 256
)

// Network is the hosts, each with the groups that joined there.
type Network struct {
	inner node.Network

	mu    sync.Mutex
	hosts map[uint64]*host
}

// New returns a network without hosts that uses inner, which is closed with it.
func New(inner node.Network) *Network {
	return &Network{inner: inner, hosts: map[uint64]*host{}}
}

// Group is the network of one group. Node ids are those of hosts. Closing it does
// nothing.
func (n *Network) Group(id uint64) node.Network { return group{n, id} }

// Close closes the wrapped network.
func (n *Network) Close() error { return n.inner.Close() }

// Stats is what all hosts that are connected have sent, as the wrapped network
// counts it: messages are carriers. counted is false where it does not count.
func (n *Network) Stats() (total node.TransportStats, counted bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.hosts {
		if s, ok := h.inner.(node.StatsReporter); ok {
			total, counted = total.Add(s.Stats()), true
		}
	}
	return total, counted
}

type group struct {
	net *Network
	id  uint64
}

// Join implements node.Network.
func (g group) Join(id uint64, r node.Receiver) (node.Transport, error) {
	n := g.net
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[id]
	if h == nil {
		h = newHost(n, id)
		inner, err := n.inner.Join(id, h)
		if err != nil {
			return nil, fmt.Errorf("groups: join host %d: %w", id, err)
		}
		h.inner = inner
		h.tasks.Go(h.flush)
		n.hosts[id] = h
	}
	return h.add(g.id, r)
}

// Close implements node.Network.
func (group) Close() error { return nil }

// leave takes a group from its host, and the host from the network when it was the
// last.
func (n *Network) leave(e *endpoint) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := e.host
	if h.remove(e) > 0 {
		return nil
	}
	delete(n.hosts, h.id)
	return h.close()
}

// host is one life of a host on the wrapped network, and its receiver.
type host struct {
	net   *Network
	id    uint64
	inner node.Transport
	tasks sync.WaitGroup

	mu     sync.RWMutex
	groups map[uint64]*endpoint

	out     sync.Mutex
	wake    sync.Cond
	closed  bool
	outbox  map[uint64]*outbox // by peer
	pending int                // messages in all of them
	snaps   map[uint64][]snapshot
}

var _ node.Receiver = (*host)(nil)

// outbox is what waits for one peer, already in carriers.
type outbox struct {
	carriers []*raftpb.Message
	messages int
	bytes    int64 // of all
	last     int64 // of the last carrier
}

// snapshot is a MsgSnap on its way, or, behind the first of its peer, waiting.
type snapshot struct {
	from *endpoint
	msg  *raftpb.Message
}

func newHost(n *Network, id uint64) *host {
	h := &host{net: n, id: id, groups: map[uint64]*endpoint{}, outbox: map[uint64]*outbox{}, snaps: map[uint64][]snapshot{}}
	h.wake.L = &h.out
	return h
}

func (h *host) add(id uint64, r node.Receiver) (node.Transport, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.groups[id] != nil {
		return nil, fmt.Errorf("groups: join host %d: group %d is there already", h.id, id)
	}
	e := newEndpoint(h, id, r)
	h.groups[id] = e
	return e, nil
}

// remove returns how many groups are left.
func (h *host) remove(e *endpoint) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.groups, e.id)
	return len(h.groups)
}

func (h *host) endpoint(id uint64) *endpoint {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.groups[id]
}

func (h *host) close() error {
	h.out.Lock()
	h.closed = true
	h.wake.Signal()
	h.out.Unlock()
	h.tasks.Wait()
	return h.inner.Close()
}

// send queues a group's messages.
func (h *host) send(e *endpoint, msgs []*raftpb.Message) {
	h.out.Lock()
	defer h.out.Unlock()
	for _, m := range msgs {
		to := m.GetTo()
		if to == raft.None || to == h.id || e.closing.Load() {
			continue
		}
		if m.GetType() == raftpb.MsgSnap {
			h.snaps[to] = append(h.snaps[to], snapshot{e, isolate.Clone(m)})
			if len(h.snaps[to]) == 1 {
				h.put(to, e, m)
			}
		} else if !h.put(to, e, m) {
			e.reports.Unreachable(to)
		}
	}
	if h.pending > 0 {
		h.wake.Signal()
	}
}

// put adds a message to a peer's outbox and reports whether there was room. There
// always is for a snapshot: it is the only one.
func (h *host) put(to uint64, e *endpoint, m *raftpb.Message) bool {
	b := h.outbox[to]
	if b == nil {
		b = &outbox{}
		h.outbox[to] = b
	}
	size, isSnap := isolate.PayloadBytes(m), m.GetType() == raftpb.MsgSnap
	if !isSnap && (b.messages >= maxMessages || b.messages > 0 && b.bytes+size > maxBytes) {
		return false
	}
	n := len(b.carriers)
	if n == 0 || isSnap || b.last+size > carrierBytes || b.carriers[n-1].GetType() == raftpb.MsgSnap {
		// A type that raft answers to keeps the carrier out of the lanes for entries
		// and proposals, where a transport may look into a message.
		typ := raftpb.MsgAppResp
		if isSnap {
			typ = raftpb.MsgSnap
		}
		b.carriers = append(b.carriers, &raftpb.Message{Type: typ.Enum(), To: &to, From: &h.id})
		b.last = 0
		n++
	}
	c := b.carriers[n-1]
	c.Responses = append(c.Responses, isolate.Clone(m)) // it may wait here
	c.Context = binary.AppendUvarint(c.Context, e.id)
	b.messages++
	b.bytes += size
	b.last += size
	h.pending++
	return true
}

// flush sends what has gathered, until the host is closed.
func (h *host) flush() {
	for {
		h.out.Lock()
		for h.pending == 0 && !h.closed {
			h.wake.Wait()
		}
		if h.closed {
			h.out.Unlock()
			return
		}
		var carriers []*raftpb.Message
		for _, b := range h.outbox {
			carriers = append(carriers, b.carriers...)
			*b = outbox{}
		}
		h.pending = 0
		h.out.Unlock()
		h.inner.Send(carriers)
	}
}

var errNobody = errors.New("groups: no group took the message")

// Process implements node.Receiver: it hands what a carrier holds to its groups.
func (h *host) Process(_ context.Context, c *raftpb.Message) error {
	ids, taken := c.GetContext(), 0
	var errs error
	for _, m := range c.GetResponses() {
		id, n := binary.Uvarint(ids)
		if n <= 0 {
			return fmt.Errorf("groups: a carrier of %d messages from host %d names fewer groups", len(c.GetResponses()), c.GetFrom())
		}
		ids = ids[n:]
		e := h.endpoint(id)
		if e == nil {
			continue
		}
		if err := e.process(m); err != nil {
			errs = errors.Join(errs, err)
		} else {
			taken++
		}
	}
	if taken == 0 && len(c.GetResponses()) > 0 {
		return errors.Join(errNobody, errs)
	}
	return nil
}

// ReportUnreachable implements node.Receiver.
func (h *host) ReportUnreachable(peer uint64) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, e := range h.groups {
		e.reports.Unreachable(peer)
	}
}

// ReportSnapshot implements node.Receiver: it ends the snapshot under way to a
// peer and sends the next.
func (h *host) ReportSnapshot(peer uint64, status raft.SnapshotStatus) {
	h.out.Lock()
	defer h.out.Unlock()
	line := h.snaps[peer]
	if len(line) == 0 {
		return
	}
	line[0].from.reports.Snapshot(peer, status)
	for line = line[1:]; len(line) > 0 && line[0].from.closing.Load(); {
		line = line[1:]
	}
	h.snaps[peer] = line
	if len(line) > 0 {
		h.put(peer, line[0].from, line[0].msg)
		h.wake.Signal()
	}
}
