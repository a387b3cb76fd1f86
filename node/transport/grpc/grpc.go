// Package grpc is the transport over google.golang.org/grpc.
//
// # Streams
//
// A node serves gRPC and opens up to three lanes to each peer, all on one HTTP/2
// connection, so that none holds up another:
//
//   - a stream of messages (everything but what follows), which stays open;
//   - a stream of forwarded proposals, which a receiver without a leader may hold
//     back;
//   - one call per MsgSnap. The call's result is what ReportSnapshot tells:
//     finished when the receiver's Process has returned without error.
//
// What waits when a lane's goroutine comes to it goes out as one gRPC message of at
// most 1 MiB (batching); larger messages are cut (chunking). wire.go draws the
// format.
//
// # Failures
//
// Each lane's queue is bounded. What does not fit, and what waits when the stream
// cannot be opened or breaks, is dropped and reported. gRPC itself reconnects, with
// backoff from 20 ms to 1 s; a peer that no longer answers at all is noticed by
// keepalive within 15 s, or by its queue overflowing.
//
// # Who may connect
//
// With Options.TLS both ends authenticate as that configuration says (set
// ClientAuth and ClientCAs for mutual TLS); with Options.Token each call must carry
// the token. A call must name the cluster and the node that it is meant for, so
// that messages never reach another run that got the same port.
package grpc

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"sync"

	"go.etcd.io/raft/v3"

	"github.com/raftbench/raftbench/node"
)

// Bounds of one lane where Options leaves them 0.
const (
	DefaultMaxMessages  = 4096      // as etcd's rafthttp, streamBufSize
	DefaultMaxBytes     = 512 << 20 // 256 messages in flight of 1 MiB, twice
	maxWaitingSnapshots = 4         // raft sends a peer one at a time
)

// Options say where nodes are and who may talk to them. The zero value is a
// network of nodes of this process over 127.0.0.1.
type Options struct {
	// Listen is the address that a joining node serves; by default its address in
	// Peers, and without one a free port of 127.0.0.1. A fixed port serves one node.
	Listen string
	// Peers are the addresses of nodes in other processes. Nodes that join this
	// Network find each other without.
	Peers map[uint64]string
	// Cluster names the run; calls from another are refused.
	Cluster string
	// TLS is used at both ends, nil for none. As a client, the name that is
	// verified is the host of the peer's address unless ServerName is set.
	TLS *tls.Config
	// Token, if not empty, must come with each call.
	Token string
	// MaxMessages and MaxBytes (of payload) bound what waits in one lane. A message
	// larger than MaxBytes passes if it is alone.
	MaxMessages int
	MaxBytes    int64
	// MaxMessageBytes bounds one message, at both ends.
	MaxMessageBytes int
	// MaxSnapshotBytes bounds the data of a snapshot, at both ends.
	MaxSnapshotBytes int64
}

// Network is the nodes of this process and the way to those elsewhere.
type Network struct {
	opts Options

	mu     sync.RWMutex
	addrs  map[uint64]string // of all nodes that are known
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
	if opts.MaxMessageBytes <= 0 {
		opts.MaxMessageBytes = DefaultMaxMessageBytes
	}
	if opts.MaxSnapshotBytes <= 0 {
		opts.MaxSnapshotBytes = DefaultMaxSnapshotBytes
	}
	n := &Network{opts: opts, addrs: make(map[uint64]string), nodes: make(map[uint64]*transport)}
	maps.Copy(n.addrs, opts.Peers)
	return n
}

// Join implements node.Network: it listens, and returns when peers can connect. It
// fails for id 0, for an id that is connected, for an address that cannot be
// listened on, and after Close.
func (n *Network) Join(id uint64, r node.Receiver) (node.Transport, error) {
	if id == raft.None {
		return nil, fmt.Errorf("grpc transport: join: node id 0 is raft's None")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, fmt.Errorf("grpc transport: join node %d: network is closed", id)
	}
	if n.nodes[id] != nil {
		return nil, fmt.Errorf("grpc transport: join node %d: it is connected already", id)
	}
	l, err := net.Listen("tcp", n.listenAddr(id))
	if err != nil {
		return nil, fmt.Errorf("grpc transport: join node %d: %w", id, err)
	}
	t := newTransport(n, id, r, l)
	n.nodes[id] = t
	if n.opts.Peers[id] == "" {
		n.addrs[id] = l.Addr().String()
	}
	return t, nil
}

func (n *Network) listenAddr(id uint64) string {
	switch {
	case n.opts.Listen != "":
		return n.opts.Listen
	case n.opts.Peers[id] != "":
		return n.opts.Peers[id]
	default:
		return "127.0.0.1:0"
	}
}

// Addr is the address of a node, "" if it is not known.
func (n *Network) Addr(id uint64) string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.addrs[id]
}

// AddPeer says where a node of another process is, or where it is now. Messages to
// it that were sent before are lost.
func (n *Network) AddPeer(id uint64, addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs[id] = addr
}

// Close implements node.Network. Transports that are still open are an error;
// they go on working.
func (n *Network) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	if len(n.nodes) > 0 {
		return fmt.Errorf("grpc transport: close network: %d transports are still open", len(n.nodes))
	}
	return nil
}

func (n *Network) leave(t *transport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.nodes, t.id)
	if n.opts.Peers[t.id] == "" {
		delete(n.addrs, t.id)
	}
}
