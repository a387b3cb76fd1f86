package faulty

import (
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/internal/isolate"
	"github.com/raftbench/raftbench/node/transport/internal/report"
)

// transport is one life of one node: the wrapped transport, and a delay line for
// each link that has needed one.
type transport struct {
	net     *Network
	id      uint64
	inner   node.Transport
	reports *report.Reporter
	tasks   sync.WaitGroup

	mu      sync.Mutex // held by Send
	closing bool
	lines   map[uint64]*line

	closeOnce sync.Once
	closeErr  error
	dropped   atomic.Int64
}

var _ node.Transport = (*transport)(nil)

func newTransport(n *Network, id uint64, r node.Receiver, inner node.Transport) *transport {
	return &transport{net: n, id: id, inner: inner, reports: report.New(r), lines: make(map[uint64]*line)}
}

// countingTransport is a transport around one that counts.
type countingTransport struct {
	*transport
	counts node.StatsReporter
}

var _ node.StatsReporter = (*countingTransport)(nil)

// Stats implements node.StatsReporter: what the wrapped transport was given, and as
// dropped what either of the two dropped.
func (t *countingTransport) Stats() node.TransportStats {
	s := t.counts.Stats()
	s.Dropped += t.dropped.Load()
	return s
}

// Send implements node.Transport.
func (t *transport) Send(msgs []*raftpb.Message) {
	if !t.net.used.Load() {
		t.inner.Send(msgs)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing {
		return
	}
	var direct []*raftpb.Message
	for _, m := range msgs {
		to := m.GetTo()
		if to == raft.None || to == t.id {
			continue
		}
		if t.line(to).put(m) {
			direct = append(direct, m)
		}
	}
	if len(direct) > 0 {
		t.inner.Send(direct)
	}
}

// line returns the delay line to a peer; t.mu is held.
func (t *transport) line(to uint64) *line {
	l := t.lines[to]
	if l == nil {
		l = &line{t: t, to: to, link: t.net.link(t.id, to), wake: make(chan struct{}, 1)}
		t.lines[to] = l
	}
	return l
}

// changed lets the lines see that conditions have changed.
func (t *transport) changed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.lines {
		l.changed()
	}
}

// lost counts a message that will not arrive, and tells the node: of a message only
// if told is set, of a snapshot always.
func (t *transport) lost(m *raftpb.Message, told bool) {
	t.dropped.Add(1)
	switch {
	case m.GetType() == raftpb.MsgSnap:
		t.reports.Snapshot(m.GetTo(), raft.SnapshotFailure)
	case told:
		t.reports.Unreachable(m.GetTo())
	}
}

// Close implements node.Transport. What waits in delay lines is dropped.
func (t *transport) Close() error {
	t.closeOnce.Do(func() {
		t.net.leave(t)
		t.mu.Lock()
		t.closing = true
		for _, l := range t.lines {
			l.close()
		}
		t.mu.Unlock()
		t.tasks.Wait()
		t.closeErr = t.inner.Close()
		t.reports.Close()
	})
	return t.closeErr
}

// line is what waits on one link, in the order in which it will arrive.
type line struct {
	t    *transport
	to   uint64
	link *link
	wake chan struct{} // something changed

	mu        sync.Mutex
	started   bool // the goroutine
	closed    bool
	passing   bool // the goroutine is handing messages over
	queue     []waiting
	bytes     int64     // of queue
	busyUntil time.Time // when the last byte of queue has been sent, at the link's rate
}

type waiting struct {
	msg   *raftpb.Message
	bytes int64
	due   time.Time
}

// put lets a message go the way that the link's conditions leave it. It returns true
// if that is straight to the wrapped transport.
func (l *line) put(m *raftpb.Message) (direct bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, lost, jitter := l.link.draw()
	if c.cut || lost {
		l.t.lost(m, c.cut)
		return false
	}
	unhindered := !c.stalled && c.delay == 0 && c.rate == 0
	if unhindered && len(l.queue) == 0 && !l.passing {
		return true
	}
	size := isolate.PayloadBytes(m)
	if len(l.queue) >= maxMessages || (len(l.queue) > 0 && l.bytes+size > maxBytes) {
		l.t.lost(m, true)
		return false
	}
	l.queue = append(l.queue, waiting{isolate.Clone(m), size, l.due(c, size, jitter)})
	l.bytes += size
	if !l.started {
		l.started = true
		l.t.tasks.Go(l.run)
	}
	l.signal()
	return false
}

// due is when a message that is sent now arrives, unless one before it arrives later:
// the queue keeps the order.
func (l *line) due(c conditions, size int64, jitter time.Duration) time.Time {
	sent := time.Now()
	if c.rate > 0 {
		if sent.Before(l.busyUntil) {
			sent = l.busyUntil
		}
		sent = sent.Add(time.Duration(float64(size+overheadBytes) / float64(c.rate) * float64(time.Second)))
		l.busyUntil = sent
	}
	return sent.Add(c.delay + jitter)
}

// signal wakes the goroutine.
func (l *line) signal() {
	select {
	case l.wake <- struct{}{}:
	default: // it has not yet seen the last one
	}
}

// changed drops what waits if the link is cut, and wakes the goroutine. After a heal
// nothing is held back but by its due time, and the rate starts afresh.
func (l *line) changed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.link.conditions()
	if c.cut {
		for _, w := range l.queue {
			l.t.lost(w.msg, true)
		}
		l.queue, l.bytes = nil, 0
	}
	if c.cut || c.rate == 0 {
		l.busyUntil = time.Time{}
	}
	l.signal()
}

func (l *line) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed, l.queue = true, nil
	l.signal()
}

// run hands messages over when they are due.
func (l *line) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		batch, wait, closed := l.take()
		if closed {
			return
		}
		if len(batch) > 0 {
			l.t.inner.Send(batch)
			continue
		}
		timer.Reset(wait)
		select {
		case <-l.wake:
		case <-timer.C:
		}
	}
}

// take returns the messages that are due now; if there are none, how long to wait
// unless woken.
func (l *line) take() (batch []*raftpb.Message, wait time.Duration, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passing = false
	if l.closed {
		return nil, 0, true
	}
	if len(l.queue) == 0 || l.link.conditions().stalled {
		return nil, time.Hour, false
	}
	now := time.Now()
	for len(l.queue) > 0 && !l.queue[0].due.After(now) {
		batch = append(batch, l.queue[0].msg)
		l.bytes -= l.queue[0].bytes
		l.queue[0] = waiting{}
		l.queue = l.queue[1:]
	}
	l.passing = len(batch) > 0
	if len(l.queue) > 0 {
		wait = l.queue[0].due.Sub(now)
	}
	return batch, wait, false
}
