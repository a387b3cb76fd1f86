package grpc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"

	"github.com/raftbench/raftbench/node/transport/internal/isolate"
	"github.com/raftbench/raftbench/node/transport/internal/queue"
)

// peer is the connection to one node and the lanes on it.
type peer struct {
	t     *transport
	id    uint64
	lanes [3]*lane // by laneOf; started when first used

	streams atomic.Int32 // snapshots of SendSnapshot under way

	mu     sync.Mutex
	closed bool
	addr   string // of conn
	conn   *grpc.ClientConn
}

func newPeer(t *transport, id uint64) *peer { return &peer{t: t, id: id} }

const (
	laneMessages = iota
	laneProposals
	laneSnapshots
)

func laneOf(typ raftpb.MessageType) int {
	switch typ {
	case raftpb.MsgProp:
		return laneProposals
	case raftpb.MsgSnap:
		return laneSnapshots
	default:
		return laneMessages
	}
}

// lane returns the lane of a type of message. The transport's lock is held.
func (p *peer) lane(typ raftpb.MessageType) *lane {
	k := laneOf(typ)
	if p.lanes[k] == nil {
		p.lanes[k] = newLane(p, k)
	}
	return p.lanes[k]
}

// close ends the lanes and the connection; the transport's lock is held.
func (p *peer) close() {
	for _, l := range p.lanes {
		if l != nil {
			l.queue.Close()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.disconnect()
}

// disconnect closes the connection, if there is one; p.mu is held.
func (p *peer) disconnect() {
	if p.conn != nil {
		// The only error is that it is closed already.
		_ = p.conn.Close()
		p.conn, p.addr = nil, ""
	}
}

// client returns the connection to where the peer is now.
func (p *peer) client() (*grpc.ClientConn, error) {
	addr := p.t.net.Addr(p.id)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, context.Canceled
	}
	if p.conn != nil && p.addr == addr {
		return p.conn, nil
	}
	p.disconnect()
	if addr == "" {
		return nil, fmt.Errorf("grpc transport: node %d is not there", p.id)
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, p.t.dialOptions(addr)...)
	if err != nil {
		return nil, fmt.Errorf("grpc transport: connect to node %d at %s: %w", p.id, addr, err)
	}
	p.conn, p.addr = conn, addr
	return conn, nil
}

func (t *transport) dialOptions(addr string) []grpc.DialOption {
	creds := insecure.NewCredentials()
	if c := t.net.opts.TLS; c != nil {
		c = c.Clone()
		if host, _, err := net.SplitHostPort(addr); err == nil && c.ServerName == "" {
			c.ServerName = host
		}
		creds = credentials.NewTLS(c)
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{})),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveAfter, Timeout: keepaliveTimeout}),
		grpc.WithInitialWindowSize(window),
		grpc.WithInitialConnWindowSize(4 * window),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			return countingConn{c, &t.sentBytes}, nil
		}),
	}
	return opts
}

// callContext carries what admit looks at.
func (p *peer) callContext() context.Context {
	kv := []string{keyCluster, p.t.net.opts.Cluster, keyTo, strconv.FormatUint(p.id, 10)}
	if tok := p.t.net.opts.Token; tok != "" {
		kv = append(kv, keyToken, "Bearer "+tok)
	}
	return metadata.AppendToOutgoingContext(p.t.ctx, kv...)
}

// sameToken compares in a time that does not depend on where they differ.
func sameToken(got []string, want string) bool {
	if len(got) != 1 {
		return false
	}
	g, w := sha256.Sum256([]byte(got[0])), sha256.Sum256([]byte("Bearer "+want))
	return subtle.ConstantTimeCompare(g[:], w[:]) == 1
}

// lane is a queue of messages to one peer and the goroutine that sends them.
type lane struct {
	p      *peer
	kind   int
	queue  *queue.Queue[*raftpb.Message]
	stream *stream // of laneMessages and laneProposals; nil before the first message
	sizes  []int   // of the batch being sent
}

func newLane(p *peer, kind int) *lane {
	maxMessages := p.t.net.opts.MaxMessages
	if kind == laneSnapshots {
		maxMessages = min(maxMessages, maxWaitingSnapshots)
	}
	l := &lane{p: p, kind: kind, queue: queue.New[*raftpb.Message](maxMessages, p.t.net.opts.MaxBytes)}
	p.t.tasks.Go(l.run)
	return l
}

func (l *lane) put(m *raftpb.Message) bool { return l.queue.Put(m, isolate.PayloadBytes(m)) }

func (l *lane) run() {
	t := l.p.t
	var batch []*raftpb.Message
	for {
		var ok bool
		if batch, ok = l.queue.Take(batch); !ok {
			return
		}
		if l.kind == laneSnapshots {
			for _, m := range batch {
				l.sendSnapshot(m)
			}
			continue
		}
		if err := l.sendMessages(batch); err != nil && !t.closing.Load() {
			// Of what gRPC took already, most is lost with the stream too.
			for _, m := range batch {
				t.drop(l.p.id, m.GetType())
			}
		}
	}
}

// sendMessages hands a batch to gRPC.
func (l *lane) sendMessages(batch []*raftpb.Message) error {
	if l.stream == nil || l.stream.ended() {
		s, err := l.open()
		if err != nil {
			return err
		}
		l.stream = s
	}
	e := encoder{send: l.stream.send, pool: mem.DefaultBufferPool(), max: maxFrame}
	defer e.discard()
	l.sizes = l.sizes[:0]
	for _, m := range batch {
		size := encodedSize(m)
		l.sizes = append(l.sizes, size)
		e.left += size
	}
	for i, m := range batch {
		if l.sizes[i] > l.p.t.net.opts.MaxMessageBytes {
			l.p.t.drop(l.p.id, m.GetType())
			continue
		}
		if err := e.add(m, l.sizes[i]); err != nil {
			return err
		}
	}
	return e.flush()
}

// open starts a stream and the goroutine that watches its end.
func (l *lane) open() (*stream, error) {
	conn, err := l.p.client()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(l.p.callContext())
	cs, err := conn.NewStream(ctx, &serviceDesc.Streams[0], methodMessages)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("grpc transport: open a stream to node %d: %w", l.p.id, err)
	}
	s := &stream{cs: cs, done: make(chan struct{})}
	l.p.t.tasks.Go(func() {
		defer cancel()
		s.watch()
		if !l.p.t.closing.Load() {
			l.p.t.reports.Unreachable(l.p.id) // what was under way is lost
		}
	})
	return s, nil
}

// stream is one open call of Messages.
type stream struct {
	cs   grpc.ClientStream
	done chan struct{} // closed when the call has ended
}

func (s *stream) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (s *stream) send(f *frame) error { return s.cs.SendMsg(f) }

// watch returns when the call has ended: the receiver sends nothing before.
func (s *stream) watch() {
	defer close(s.done)
	var f frame
	if err := s.cs.RecvMsg(&f); err == nil {
		f.in.Free()
	}
}

// sendSnapshot makes one call and reports how it ended.
func (l *lane) sendSnapshot(m *raftpb.Message) {
	if m.Snapshot == nil {
		l.p.snapshotEnded(errors.New("grpc transport: a MsgSnap without snapshot"))
		return
	}
	data := m.Snapshot.Data
	m.Snapshot.Data = nil // m is this transport's own copy
	l.p.snapshotEnded(l.p.callSnapshot(m, bytes.NewReader(data), int64(len(data))))
}

// snapshotEnded tells the node how the sending of a MsgSnap ended.
func (p *peer) snapshotEnded(err error) {
	switch {
	case p.t.closing.Load():
	case err != nil:
		p.t.drop(p.id, raftpb.MsgSnap)
	default:
		p.t.reports.Snapshot(p.id, raft.SnapshotFinish)
	}
}

// callSnapshot returns when the peer's node has taken the snapshot, or refused it.
func (p *peer) callSnapshot(m *raftpb.Message, data io.Reader, size int64) error {
	if size > p.t.net.opts.MaxSnapshotBytes {
		return errTooLarge
	}
	conn, err := p.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(p.callContext())
	defer cancel()
	cs, err := conn.NewStream(ctx, &serviceDesc.Streams[1], methodSnapshot)
	if err != nil {
		return fmt.Errorf("grpc transport: send a snapshot to node %d: %w", p.id, err)
	}
	if err := sendSnapshot(m, data, size, func(f *frame) error { return cs.SendMsg(f) }); err != nil {
		return fmt.Errorf("grpc transport: send a snapshot to node %d: %w", p.id, err)
	}
	if err := cs.CloseSend(); err != nil {
		return fmt.Errorf("grpc transport: send a snapshot to node %d: %w", p.id, err)
	}
	var f frame
	if err := cs.RecvMsg(&f); err != nil {
		return fmt.Errorf("grpc transport: send a snapshot to node %d: %w", p.id, err)
	}
	f.in.Free()
	return nil
}
