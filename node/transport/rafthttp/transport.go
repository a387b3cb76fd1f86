package rafthttp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	stats "go.etcd.io/etcd/server/v3/etcdserver/api/v2stats"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/internal/isolate"
	"github.com/raftbench/raftbench/node/transport/internal/report"
)

// maxSnapshots is how many MsgSnap to one peer may be under way; raft has one.
const maxSnapshots = 4

var errClosed = errors.New("rafthttp: transport is closed")

// transport is one life of one node: etcd's Transport and the HTTP server for it.
type transport struct {
	net     *Network
	id      uint64
	recv    node.Receiver
	reports *report.Reporter
	etcd    *rafthttp.Transport
	server  *http.Server
	served  chan struct{} // closed when server is done
	inbox   snapshots
	streams streams
	ctx     context.Context // of Process; ends with Close
	cancel  context.CancelFunc

	mu      sync.RWMutex
	closing bool
	known   map[uint64]bool // the peers that etcd has

	calls     sync.WaitGroup // HTTP requests and calls of Process under way
	closeOnce sync.Once
	closeErr  error

	sendingMu sync.Mutex
	sending   map[uint64]int // MsgSnaps under way

	sentMessages, sentBytes, dropped atomic.Int64
}

var (
	_ node.Transport      = (*transport)(nil)
	_ node.SnapshotSender = (*transport)(nil)
	_ node.StatsReporter  = (*transport)(nil)
	_ rafthttp.Raft       = (*raftSide)(nil)
)

// newTransport serves on l, which is its from then on, also where it fails.
func newTransport(n *Network, id uint64, r node.Receiver, l net.Listener) (_ *transport, err error) {
	dir := ""
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
			if dir != "" {
				err = errors.Join(err, os.RemoveAll(dir))
			}
		}
	}()
	if dir, err = os.MkdirTemp(n.opts.Dir, "rafthttp-"+strconv.FormatUint(id, 10)+"-"); err != nil {
		return nil, fmt.Errorf("make a folder for snapshots: %w", err)
	}
	t := &transport{net: n, id: id, recv: r, inbox: snapshots{dir: dir}, served: make(chan struct{}),
		known: make(map[uint64]bool), sending: make(map[uint64]int)}
	lg := zap.NewNop()
	serverStats := stats.NewServerStats("", types.ID(id).String())
	t.etcd = &rafthttp.Transport{
		Logger:      lg,
		DialTimeout: 5 * time.Second,
		TLSInfo:     n.opts.TLS,
		ID:          types.ID(id),
		ClusterID:   n.cluster,
		Raft:        &raftSide{t},
		Snapshotter: snap.New(lg, dir),
		ServerStats: serverStats,
		LeaderStats: stats.NewLeaderStats(lg, types.ID(id).String()),
		ErrorC:      make(chan error, 1), // says that a member was removed, which raftSide never does
	}
	wrapped, err := t.listener(l)
	if err != nil {
		return nil, err
	}
	if err := t.etcd.Start(); err != nil {
		return nil, fmt.Errorf("start etcd's transport: %w", err)
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.reports = report.New(r)
	t.server = &http.Server{
		Handler:           t.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       10 * time.Second, // longer than etcd's probes, every 4 s
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	go func() {
		defer close(t.served)
		// Serve ends when Close closes the server. A listener that fails earlier
		// shows at the peers, who cannot connect and report so.
		_ = t.server.Serve(wrapped)
	}()
	return t, nil
}

// know tells etcd where a peer is.
func (t *transport) know(id uint64, url string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closing: // etcd's transport would panic
	case t.known[id]:
		t.etcd.UpdatePeer(types.ID(id), []string{url})
	default:
		t.etcd.AddPeer(types.ID(id), []string{url})
		t.known[id] = true
	}
}

// Send implements node.Transport. Messages to node 0 and to the sender itself are
// skipped: raft marks so what is not to be sent.
func (t *transport) Send(msgs []*raftpb.Message) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var batch []*raftpb.Message
	for _, m := range msgs {
		to := m.GetTo()
		switch {
		case to == raft.None || to == t.id:
		case t.closing || !t.known[to]:
			t.drop(to, m.GetType())
		case m.GetType() == raftpb.MsgSnap:
			t.sendSnapshot(isolate.Clone(m))
		default:
			batch = append(batch, isolate.Clone(m))
		}
	}
	t.sentMessages.Add(int64(len(batch)))
	t.etcd.Send(batch)
}

// sendSnapshot sends the snapshot's data as the body of a request. etcd reports
// how that ends to raftSide.
func (t *transport) sendSnapshot(m *raftpb.Message) {
	if m.Snapshot == nil || !t.beginSnapshot(m.GetTo()) {
		t.drop(m.GetTo(), raftpb.MsgSnap)
		return
	}
	data := m.Snapshot.Data
	m.Snapshot.Data = nil // m is this transport's own copy
	t.post(m, io.NopCloser(bytes.NewReader(data)), int64(len(data)))
}

// SendSnapshot implements node.SnapshotSender.
func (t *transport) SendSnapshot(m *raftpb.Message, data io.ReadCloser, size int64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	to := m.GetTo()
	switch {
	case to == raft.None || to == t.id:
		_ = data.Close() // it was not read
	case t.closing || !t.known[to] || !t.beginSnapshot(to):
		_ = data.Close()
		t.drop(to, raftpb.MsgSnap)
	default:
		t.calls.Add(1) // Close waits until the body is closed; it has the lock before
		t.post(isolate.Clone(m), &body{ReadCloser: data, done: t.calls.Done}, size)
	}
}

// body is the data of a snapshot that etcd sends. etcd closes it twice.
type body struct {
	io.ReadCloser
	once sync.Once
	err  error
	done func()
}

func (b *body) Close() error {
	b.once.Do(func() {
		b.err = b.ReadCloser.Close()
		b.done()
	})
	return b.err
}

// post gives a MsgSnap without Data to etcd.
func (t *transport) post(m *raftpb.Message, body io.ReadCloser, size int64) {
	t.sentMessages.Add(1)
	t.sentBytes.Add(int64(proto.Size(m)) + size)
	msg := snap.NewMessage(m, body, size)
	// NewMessage wraps the body so that its length is checked, but the wrapper's
	// Close races with a Read where sending is given up (etcd 3.7.3).
	msg.ReadCloser = body
	t.etcd.SendSnapshot(msg)
}

func (t *transport) beginSnapshot(to uint64) bool {
	t.sendingMu.Lock()
	defer t.sendingMu.Unlock()
	if t.sending[to] >= maxSnapshots {
		return false
	}
	t.sending[to]++
	return true
}

func (t *transport) endSnapshot(to uint64) {
	t.sendingMu.Lock()
	defer t.sendingMu.Unlock()
	t.sending[to]--
}

// drop counts a message that etcd was not given and says so to the node.
func (t *transport) drop(to uint64, typ raftpb.MessageType) {
	t.dropped.Add(1)
	if typ == raftpb.MsgSnap {
		t.reports.Snapshot(to, raft.SnapshotFailure)
		return
	}
	t.reports.Unreachable(to)
}

// Stats implements node.StatsReporter. Bytes are what was written to the streams
// that peers opened, HTTP included and TLS not, and the snapshots; the few messages that
// go by POST before the streams are up are not counted. Dropped counts etcd's reports
// of unreachable peers, each of which may stand for several messages.
func (t *transport) Stats() node.TransportStats {
	return node.TransportStats{Messages: t.sentMessages.Load(), Bytes: t.sentBytes.Load(), Dropped: t.dropped.Load()}
}

// Close implements node.Transport. No method of the Receiver is called after it.
func (t *transport) Close() error {
	t.closeOnce.Do(func() {
		t.mu.Lock()
		t.closing = true
		t.mu.Unlock()
		t.cancel()
		err := t.server.Close() // first: it ends writes that the peer does not read
		t.etcd.Stop()
		<-t.served
		t.calls.Wait()
		t.reports.Close()
		t.net.leave(t)
		t.closeErr = errors.Join(err, os.RemoveAll(t.inbox.dir))
	})
	return t.closeErr
}

// enter counts a call in that Close waits for; false once it is closing.
func (t *transport) enter() bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.closing {
		return false
	}
	t.calls.Add(1)
	return true
}

// raftSide is what etcd's transport sees of the node.
type raftSide struct{ t *transport }

// Process hands on a message that arrived. etcd's context is not used: for
// requests it never ends.
func (r *raftSide) Process(_ context.Context, m *raftpb.Message) error {
	t := r.t
	if !t.enter() {
		return errClosed
	}
	defer t.calls.Done()
	if m.GetType() == raftpb.MsgSnap && m.Snapshot != nil {
		return t.deliverSnapshot(m)
	}
	return t.recv.Process(t.ctx, m)
}

// deliverSnapshot hands on a MsgSnap with what etcd's handler has written to a
// file.
func (t *transport) deliverSnapshot(m *raftpb.Message) error {
	f, size, err := t.inbox.open(t.etcd.Snapshotter, m.Snapshot.GetMetadata().GetIndex())
	if err != nil {
		return err
	}
	return errors.Join(node.DeliverSnapshot(t.ctx, t.recv, m, f, size), f.Close())
}

// IsIDRemoved lets all in; the node drops what comes from removed members.
func (r *raftSide) IsIDRemoved(uint64) bool { return false }

// ReportUnreachable hands on etcd's report.
func (r *raftSide) ReportUnreachable(id uint64) {
	r.t.dropped.Add(1)
	r.t.reports.Unreachable(id)
}

// ReportSnapshot hands on etcd's report.
func (r *raftSide) ReportSnapshot(id uint64, status raft.SnapshotStatus) {
	r.t.endSnapshot(id)
	r.t.reports.Snapshot(id, status)
}
