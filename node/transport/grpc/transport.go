package grpc

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/internal/isolate"
	"github.com/raftbench/raftbench/node/transport/internal/report"
)

// window is how many bytes of a stream, or of a connection, may be under way. A
// fixed size keeps gRPC from probing for one.
const window = 4 << 20

// transport is one life of one node: its server and its lanes to the peers.
type transport struct {
	net     *Network
	id      uint64
	recv    node.Receiver
	reports *report.Reporter
	server  *grpc.Server
	ctx     context.Context // of all streams to peers; ends with Close
	cancel  context.CancelFunc
	tasks   sync.WaitGroup // lanes, their watchers, and the server

	closing   atomic.Bool
	closeOnce sync.Once

	mu    sync.Mutex // held by Send
	peers map[uint64]*peer

	sentMessages, sentBytes, dropped atomic.Int64
}

var (
	_ node.Transport      = (*transport)(nil)
	_ node.SnapshotSender = (*transport)(nil)
	_ node.StatsReporter  = (*transport)(nil)
)

func newTransport(n *Network, id uint64, r node.Receiver, l net.Listener) *transport {
	t := &transport{net: n, id: id, recv: r, reports: report.New(r), peers: make(map[uint64]*peer)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	opts := []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{}),
		grpc.MaxRecvMsgSize(2 * maxFrame),
		grpc.InitialWindowSize(window),
		grpc.InitialConnWindowSize(4 * window),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveAfter / 2, PermitWithoutStream: true}),
		grpc.StreamInterceptor(t.admit),
	}
	if n.opts.TLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(n.opts.TLS)))
	}
	t.server = grpc.NewServer(opts...)
	t.server.RegisterService(&serviceDesc, t)
	t.tasks.Go(func() {
		// Serve ends when Close stops the server. A listener that fails earlier
		// shows at the peers, who cannot connect and report so.
		_ = t.server.Serve(countingListener{l, &t.sentBytes})
	})
	return t
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
		p := t.peer(to)
		if p == nil || !p.lane(m.GetType()).put(isolate.Clone(m)) {
			t.drop(to, m.GetType())
			continue
		}
		t.sentMessages.Add(1)
	}
}

// peer returns the way to a node, nil if there is none; the lock is held.
func (t *transport) peer(id uint64) *peer {
	if t.closing.Load() || t.net.Addr(id) == "" {
		return nil
	}
	p := t.peers[id]
	if p == nil {
		p = newPeer(t, id)
		t.peers[id] = p
	}
	return p
}

// SendSnapshot implements node.SnapshotSender: one call, and a goroutine of its
// own.
func (t *transport) SendSnapshot(m *raftpb.Message, data io.ReadCloser, size int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	to := m.GetTo()
	if to == raft.None || to == t.id {
		_ = data.Close() // it was not read
		return
	}
	p := t.peer(to)
	if p == nil || p.streams.Load() >= maxWaitingSnapshots {
		_ = data.Close()
		t.drop(to, raftpb.MsgSnap)
		return
	}
	p.streams.Add(1)
	t.sentMessages.Add(1)
	m = isolate.Clone(m)
	// Close holds the lock after closing is set, and waits for tasks after that.
	t.tasks.Go(func() {
		err := errors.Join(p.callSnapshot(m, data, size), data.Close())
		p.streams.Add(-1)
		p.snapshotEnded(err)
	})
}

// drop counts a lost message and says so to the node.
func (t *transport) drop(to uint64, typ raftpb.MessageType) {
	t.dropped.Add(1)
	if typ == raftpb.MsgSnap {
		t.reports.Snapshot(to, raft.SnapshotFailure)
		return
	}
	t.reports.Unreachable(to)
}

// Stats implements node.StatsReporter. Bytes are what was written to TCP by both
// the server and the connections of this node, acknowledgements, HTTP/2 and TLS
// included.
func (t *transport) Stats() node.TransportStats {
	return node.TransportStats{Messages: t.sentMessages.Load(), Bytes: t.sentBytes.Load(), Dropped: t.dropped.Load()}
}

// Close implements node.Transport. What waits in the lanes is dropped; no method of
// the Receiver is called after it.
func (t *transport) Close() error {
	t.closeOnce.Do(func() {
		t.closing.Store(true)
		t.cancel()
		t.mu.Lock()
		for _, p := range t.peers {
			p.close()
		}
		t.mu.Unlock()
		t.server.Stop()
		t.tasks.Wait()
		t.reports.Close()
		t.net.leave(t)
	})
	return nil
}

// service is what serviceDesc calls.
type service interface {
	messages(grpc.ServerStream) error
	snapshot(grpc.ServerStream) error
}

const (
	methodMessages = "/raftbench.Transport/Messages"
	methodSnapshot = "/raftbench.Transport/Snapshot"
)

// serviceDesc is written by hand: the frames are not protobuf messages, so there
// is nothing to generate.
var serviceDesc = grpc.ServiceDesc{
	ServiceName: "raftbench.Transport",
	HandlerType: (*service)(nil),
	Streams: []grpc.StreamDesc{
		{StreamName: "Messages", ClientStreams: true, Handler: func(s any, st grpc.ServerStream) error { return s.(service).messages(st) }},
		{StreamName: "Snapshot", ClientStreams: true, Handler: func(s any, st grpc.ServerStream) error { return s.(service).snapshot(st) }},
	},
}

// The metadata that each call carries.
const (
	keyCluster = "raftbench-cluster"
	keyTo      = "raftbench-to"
	keyToken   = "authorization"
)

// admit lets only those calls in that know the token and mean this node.
func (t *transport) admit(srv any, st grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	md, _ := metadata.FromIncomingContext(st.Context())
	if want := t.net.opts.Token; want != "" && !sameToken(md.Get(keyToken), want) {
		return status.Error(codes.Unauthenticated, "the token is missing or wrong")
	}
	if got := md.Get(keyCluster); !slices.Equal(got, []string{t.net.opts.Cluster}) {
		return status.Errorf(codes.FailedPrecondition, "call from cluster %q, this is %q", got, t.net.opts.Cluster)
	}
	if got := md.Get(keyTo); !slices.Equal(got, []string{strconv.FormatUint(t.id, 10)}) {
		return status.Errorf(codes.FailedPrecondition, "call to node %q, this is %d", got, t.id)
	}
	return handle(srv, st)
}

// messages takes a stream of messages until it ends. A message that the node
// refuses is lost; the stream goes on.
func (t *transport) messages(st grpc.ServerStream) error {
	d := decoder{limit: t.net.opts.MaxMessageBytes}
	process := func(m *raftpb.Message) error {
		// What a refusal means is between the nodes; raft repeats what matters.
		_ = t.recv.Process(st.Context(), m)
		return st.Context().Err()
	}
	for {
		var f frame
		if err := st.RecvMsg(&f); errors.Is(err, io.EOF) {
			return st.SendMsg(&frame{})
		} else if err != nil {
			return err
		}
		for _, b := range f.in {
			if err := d.feed(b.ReadOnlyData(), process); err != nil {
				f.in.Free()
				return status.Error(codes.InvalidArgument, err.Error())
			}
		}
		f.in.Free()
	}
}

// snapshot takes one MsgSnap. Its result tells the sender whether the node took it.
func (t *transport) snapshot(st grpc.ServerStream) error {
	var head frame
	if err := st.RecvMsg(&head); err != nil {
		return err
	}
	m, size, err := snapshotHead(head.in.Materialize(), t.net.opts.MaxSnapshotBytes)
	head.in.Free()
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	data := &frameReader{recv: func(f *frame) error { return st.RecvMsg(f) }, left: size}
	defer data.free()
	if err := node.DeliverSnapshot(st.Context(), t.recv, m, data, size); err != nil {
		if data.err != nil && !errors.Is(data.err, io.EOF) {
			return data.err
		}
		return status.Error(codes.Aborted, err.Error())
	}
	return st.SendMsg(&frame{})
}

// countingListener counts what its connections write.
type countingListener struct {
	net.Listener
	bytes *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{c, l.bytes}, nil
}

type countingConn struct {
	net.Conn
	bytes *atomic.Int64
}

func (c countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}

// keepaliveAfter is how long a connection may be silent before it is probed; gRPC
// allows no less. The peer has as long to answer as keepaliveTimeout.
const (
	keepaliveAfter   = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
)
