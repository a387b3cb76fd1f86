package mem

import (
	"context"
	"errors"
	"io"
	"sync"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/internal/isolate"
)

// maxStreams is how many snapshots may be under way on one link; raft has one.
const maxStreams = 4

// SendSnapshot implements node.SnapshotSender: the receiver reads what the sender
// would have read. Each snapshot has a goroutine of its own, so that no message
// waits for it.
func (t *transport) SendSnapshot(m *raftpb.Message, data io.ReadCloser, size int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	to := m.GetTo()
	if to == raft.None || to == t.id {
		_ = data.Close() // it was not read
		return
	}
	l := t.linkTo(to)
	if l == nil || !l.stream(isolate.Clone(m), data, size) {
		_ = data.Close()
		t.drop(to, raftpb.MsgSnap)
	}
}

// stream starts the goroutine that delivers a snapshot, unless too many are under
// way or one end is closing. Close of either end waits for it.
func (l *link) stream(m *raftpb.Message, data io.ReadCloser, size int64) bool {
	if l.streams.Load() >= maxStreams || !l.from.streams.begin() {
		return false
	}
	if !l.to.streams.begin() {
		l.from.streams.done()
		return false
	}
	l.streams.Add(1)
	l.from.messages.Add(1)
	go func() {
		err := errors.Join(l.deliverStream(m, data, size), data.Close())
		l.streams.Add(-1)
		l.to.streams.done()
		switch {
		case l.from.closing.Load():
		case err != nil:
			l.from.drop(l.to.id, raftpb.MsgSnap)
		default:
			l.from.reports.Snapshot(l.to.id, raft.SnapshotFinish)
		}
		l.from.streams.done()
	}()
	return true
}

// deliverStream ends early when either end closes.
func (l *link) deliverStream(m *raftpb.Message, data io.Reader, size int64) error {
	ctx, cancel := context.WithCancel(l.to.ctx)
	defer cancel()
	defer context.AfterFunc(l.from.ctx, cancel)()
	counted := &countedReader{data, l}
	return node.DeliverSnapshot(ctx, l.to.recv, m, counted, size)
}

type countedReader struct {
	io.Reader
	l *link
}

func (r *countedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.l.from.bytes.Add(int64(n))
	return n, err
}

// streams is a WaitGroup that is added to until it is closed.
type streams struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

func (s *streams) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Add(1)
	return true
}

func (s *streams) done() { s.wg.Done() }

// close waits for what was begun, and lets nothing begin any more.
func (s *streams) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.wg.Wait()
}
