// Package report tells a node, from a goroutine of its own, which of its sends
// failed and how its snapshots ended.
//
// A Receiver's report methods may wait for the raft loop (raft.Node's do), and
// Transport.Send is called from that loop, so a transport must not call them
// from Send.
package report

import (
	"sync"

	"go.etcd.io/raft/v3"
)

// Sink is the part of node.Receiver that takes reports.
type Sink interface {
	ReportUnreachable(id uint64)
	ReportSnapshot(id uint64, status raft.SnapshotStatus)
}

type snapshotEnd struct {
	id     uint64
	status raft.SnapshotStatus
}

// Reporter queues reports and hands them to its sink, one at a time. Its methods
// never block and may be called from any goroutine; only Close waits.
//
// Unreachable reports about one peer are merged while they wait: there is at most
// one per peer in the queue. Snapshot reports are never merged; raft has at most
// one snapshot under way for each peer, which bounds them.
type Reporter struct {
	sink Sink
	done chan struct{}

	mu          sync.Mutex
	wake        sync.Cond
	closed      bool
	unreachable []uint64
	snapshots   []snapshotEnd
}

// New starts a reporter for sink. It must be closed.
func New(sink Sink) *Reporter {
	r := &Reporter{sink: sink, done: make(chan struct{})}
	r.wake.L = &r.mu
	go r.run()
	return r
}

// Unreachable queues Sink.ReportUnreachable(id).
func (r *Reporter) Unreachable(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, waiting := range r.unreachable {
		if waiting == id {
			return
		}
	}
	r.unreachable = append(r.unreachable, id)
	r.wake.Signal()
}

// Snapshot queues Sink.ReportSnapshot(id, status).
func (r *Reporter) Snapshot(id uint64, status raft.SnapshotStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.snapshots = append(r.snapshots, snapshotEnd{id, status})
	r.wake.Signal()
}

// Close drops what is still queued and returns when the sink will not be called
// any more. It may be called more than once.
func (r *Reporter) Close() {
	r.mu.Lock()
	r.closed = true
	r.wake.Signal()
	r.mu.Unlock()
	<-r.done
}

func (r *Reporter) run() {
	defer close(r.done)
	for {
		r.mu.Lock()
		for len(r.unreachable) == 0 && len(r.snapshots) == 0 && !r.closed {
			r.wake.Wait()
		}
		if r.closed {
			r.mu.Unlock()
			return
		}
		if len(r.snapshots) > 0 {
			s := r.snapshots[0]
			r.snapshots = r.snapshots[1:]
			r.mu.Unlock()
			r.sink.ReportSnapshot(s.id, s.status)
			continue
		}
		id := r.unreachable[0]
		r.unreachable = r.unreachable[1:]
		r.mu.Unlock()
		r.sink.ReportUnreachable(id)
	}
}
