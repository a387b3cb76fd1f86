// Package mem is the transport between nodes of one process: no sockets, no
// copies of payloads, one queue per receiving node.
//
// It promises what node.Transport asks for. Entries and snapshot data are shared
// between sender and receiver, who must not change them (package isolate says why
// raft does not); everything else of a message is copied when it is sent. With
// Options.Codec each message is marshalled and unmarshalled on its way, which is
// what the encoding of a real network costs and isolates the two sides entirely.
//
// Forwarded proposals (MsgProp) travel in a lane of their own, as in etcd's
// rafthttp: a node without a leader holds them back, and what ends that state,
// votes and appends, must be able to pass them. Within a lane the messages of one
// sender arrive in order.
package mem

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/internal/isolate"
	"github.com/raftbench/raftbench/node/transport/internal/report"
)

// Bounds of one link where Options leaves them 0.
const (
	DefaultMaxMessages = 4096      // as etcd's rafthttp, streamBufSize
	DefaultMaxBytes    = 512 << 20 // 256 messages in flight of 1 MiB, twice
)

// Options tune a network. The zero value is ready to use.
type Options struct {
	// MaxMessages and MaxBytes (of payload) bound what waits on one link, from
	// one sender to one receiver, the message being processed included. A message
	// larger than MaxBytes passes if it is alone.
	MaxMessages int
	MaxBytes    int64
	// Codec sends every message through protobuf.
	Codec bool
}

// Network connects nodes of this process.
type Network struct {
	opts Options

	mu     sync.RWMutex
	nodes  map[uint64]*transport
	closed bool
}

var _ node.Network = (*Network)(nil)

// New returns a network without nodes.
func New(opts Options) *Network {
	if opts.MaxMessages <= 0 {
		opts.MaxMessages = DefaultMaxMessages
	}
	if opts.MaxBytes <= 0 {
		opts.MaxBytes = DefaultMaxBytes
	}
	return &Network{opts: opts, nodes: make(map[uint64]*transport)}
}

// Join implements node.Network. It fails for id 0, for an id that is connected,
// and after Close.
func (n *Network) Join(id uint64, r node.Receiver) (node.Transport, error) {
	if id == raft.None {
		return nil, fmt.Errorf("mem: join: node id 0 is raft's None")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, fmt.Errorf("mem: join node %d: network is closed", id)
	}
	if n.nodes[id] != nil {
		return nil, fmt.Errorf("mem: join node %d: it is connected already", id)
	}
	t := newTransport(n, id, r)
	n.nodes[id] = t
	return t, nil
}

// Close implements node.Network. Transports that are still open are an error;
// they go on working.
func (n *Network) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	if len(n.nodes) > 0 {
		return fmt.Errorf("mem: close network: %d transports are still open", len(n.nodes))
	}
	return nil
}

func (n *Network) lookup(id uint64) *transport {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.nodes[id]
}

func (n *Network) leave(t *transport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.nodes, t.id)
}

// transport is one life of one node on the network.
type transport struct {
	net     *Network
	id      uint64
	recv    node.Receiver
	reports *report.Reporter
	ctx     context.Context // of Process; ends with Close
	cancel  context.CancelFunc
	inbox   *inbox
	props   *inbox

	closing   atomic.Bool
	closeOnce sync.Once

	mu    sync.Mutex // held by Send
	links map[uint64]*link

	streams streams

	messages, bytes, dropped atomic.Int64
}

var (
	_ node.Transport      = (*transport)(nil)
	_ node.SnapshotSender = (*transport)(nil)
	_ node.StatsReporter  = (*transport)(nil)
)

func newTransport(n *Network, id uint64, r node.Receiver) *transport {
	t := &transport{net: n, id: id, recv: r, reports: report.New(r), links: make(map[uint64]*link)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.inbox, t.props = newInbox(t), newInbox(t)
	return t
}

// link is the way from one life of a node to one life of another. It counts what
// is queued or being processed.
type link struct {
	from, to *transport
	messages atomic.Int64
	bytes    atomic.Int64
	streams  atomic.Int64 // snapshots under way
}

// Send implements node.Transport. Messages to node 0 and to the sender itself are
// skipped: raft marks so what is not to be sent.
func (t *transport) Send(msgs []*raftpb.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range msgs {
		to := m.GetTo()
		if to == raft.None || to == t.id {
			continue
		}
		l := t.linkTo(to)
		if l == nil || !l.put(m) {
			t.drop(to, m.GetType())
		}
	}
}

// linkTo returns the link to the present life of node id, nil if there is none.
func (t *transport) linkTo(id uint64) *link {
	if t.closing.Load() {
		return nil
	}
	if l := t.links[id]; l != nil && !l.to.closing.Load() {
		return l
	}
	peer := t.net.lookup(id)
	if peer == nil || peer.closing.Load() {
		delete(t.links, id)
		return nil
	}
	l := &link{from: t, to: peer}
	t.links[id] = l
	return l
}

// put queues a copy of m and reports whether there was room.
func (l *link) put(m *raftpb.Message) bool {
	opts, size := l.from.net.opts, isolate.PayloadBytes(m)
	waiting := l.messages.Load()
	if waiting >= int64(opts.MaxMessages) || (waiting > 0 && l.bytes.Load()+size > opts.MaxBytes) {
		return false
	}
	l.messages.Add(1)
	l.bytes.Add(size)
	box := l.to.inbox
	if m.GetType() == raftpb.MsgProp {
		box = l.to.props
	}
	// Counted before it can arrive, so that whoever has a message finds it in Stats.
	sent := size
	if opts.Codec {
		sent = 0 // recode counts what it encodes
	}
	l.from.messages.Add(1)
	l.from.bytes.Add(sent)
	if box.put(item{link: l, msg: isolate.Clone(m), bytes: size}) {
		return true
	}
	l.from.messages.Add(-1)
	l.from.bytes.Add(-sent)
	l.messages.Add(-1)
	l.bytes.Add(-size)
	return false
}

// drop counts a lost message of this sender and says so to its node.
func (t *transport) drop(to uint64, typ raftpb.MessageType) {
	t.dropped.Add(1)
	if typ == raftpb.MsgSnap {
		t.reports.Snapshot(to, raft.SnapshotFailure)
		return
	}
	t.reports.Unreachable(to)
}

// Stats implements node.StatsReporter. Bytes are payload, or with Options.Codec the
// size of the encoded messages.
func (t *transport) Stats() node.TransportStats {
	return node.TransportStats{Messages: t.messages.Load(), Bytes: t.bytes.Load(), Dropped: t.dropped.Load()}
}

// Close implements node.Transport. What is queued for this node is dropped and
// reported to its senders; what this node has sent and is still queued elsewhere
// is dropped when its turn comes. No method of the Receiver is called after it.
func (t *transport) Close() error {
	t.closeOnce.Do(func() {
		t.closing.Store(true)
		t.cancel()
		t.inbox.close()
		t.props.close()
		t.streams.close()
		t.reports.Close()
		t.net.leave(t)
	})
	return nil
}

type item struct {
	link  *link
	msg   *raftpb.Message
	bytes int64
}

// inbox is the queue of one receiving node and the goroutine that empties it.
// Senders append to a slice; the goroutine takes the whole slice at once, so that
// under load a message costs neither of them a wake-up.
type inbox struct {
	owner *transport
	done  chan struct{}

	mu      sync.Mutex
	wake    sync.Cond
	queue   []item
	waiting bool
	closed  bool
}

func newInbox(owner *transport) *inbox {
	b := &inbox{owner: owner, done: make(chan struct{})}
	b.wake.L = &b.mu
	go b.run()
	return b
}

func (b *inbox) put(it item) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.queue = append(b.queue, it)
	if b.waiting {
		b.waiting = false
		b.wake.Signal()
	}
	return true
}

// close stops delivery and returns when the goroutine has ended.
func (b *inbox) close() {
	b.mu.Lock()
	b.closed = true
	b.wake.Signal()
	b.mu.Unlock()
	<-b.done
}

func (b *inbox) run() {
	defer close(b.done)
	var batch []item
	for {
		batch = b.take(batch[:0])
		if len(batch) == 0 {
			return
		}
		for i := range batch {
			b.deliver(batch[i])
			batch[i] = item{} // the message is the receiver's now
		}
	}
}

// take waits for messages and returns them all, leaving the emptied slice in
// their place. It returns none once the inbox is closed and empty.
func (b *inbox) take(emptied []item) []item {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.queue) == 0 && !b.closed {
		b.waiting = true
		b.wake.Wait()
	}
	batch := b.queue
	b.queue = emptied
	return batch
}

func (b *inbox) deliver(it item) {
	l, typ := it.link, it.msg.GetType()
	err := b.process(it)
	l.messages.Add(-1)
	l.bytes.Add(-it.bytes)
	if l.from.closing.Load() {
		return
	}
	switch {
	case err != nil:
		l.from.drop(b.owner.id, typ)
	case typ == raftpb.MsgSnap:
		l.from.reports.Snapshot(b.owner.id, raft.SnapshotFinish)
	}
}

func (b *inbox) process(it item) error {
	if b.owner.closing.Load() || it.link.from.closing.Load() {
		return context.Canceled
	}
	m := it.msg
	if b.owner.net.opts.Codec {
		var err error
		var size int
		if m, size, err = recode(m); err != nil {
			return err
		}
		it.link.from.bytes.Add(int64(size))
	}
	return b.owner.recv.Process(b.owner.ctx, m)
}

func recode(m *raftpb.Message) (*raftpb.Message, int, error) {
	raw, err := proto.Marshal(m)
	if err != nil {
		return nil, 0, fmt.Errorf("mem: marshal %s: %w", m.GetType(), err)
	}
	out := new(raftpb.Message)
	if err := proto.Unmarshal(raw, out); err != nil {
		return nil, 0, fmt.Errorf("mem: unmarshal %s: %w", m.GetType(), err)
	}
	return out, len(raw), nil
}
