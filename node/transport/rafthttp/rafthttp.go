// Package rafthttp is etcd's own transport: the package
// go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp, unchanged, behind the contract of
// package node.
//
// # What etcd does
//
// A node opens two long HTTP/1.1 streams from each peer, one for MsgApp and one for
// everything else. Until they are up, messages go by POST, four at a time and
// therefore in any order. Queues count messages, not bytes: 4096 wait to be
// written to a stream, 4096 read ones wait for the node, and what comes when the
// latter are full is lost without a report.
//
// A MsgSnap travels as etcd's database snapshots do: the message and then the data
// as one POST, which the receiver writes to a file and syncs before it looks at the
// message. The data is read back from that file, so this transport pays for a disk
// where the others do not. A message other than a snapshot is limited to 512 MiB.
//
// # Who may connect
//
// With Options.TLS, both ends authenticate by certificate. Requests from another
// cluster are refused.
package rafthttp

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"

	"github.com/cespare/xxhash/v2"
	etcdtransport "go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3"

	"github.com/raftbench/raftbench/node"
)

// Options say where nodes are and who may talk to them. The zero value is a
// network of nodes of this process over 127.0.0.1.
type Options struct {
	// Listen is the address that a joining node serves; by default its address in
	// Peers, and without one a free port of 127.0.0.1. A fixed port serves one node.
	Listen string
	// Peers are the addresses, host:port, of nodes in other processes. Nodes that
	// join this Network find each other without.
	Peers map[uint64]string
	// Cluster names the run; requests from another are refused. Empty stands for
	// a name of its own, which suits nodes of one process only.
	Cluster string
	// TLS names the files of the certificate, the key and the authority; with an
	// authority, clients must have a certificate too. Empty for none.
	TLS etcdtransport.TLSInfo
	// Dir is where incoming snapshots are written, each node's in a folder that is
	// removed when the node leaves; by default the system's temporary folder.
	Dir string
}

// Network is the nodes of this process and the way to those elsewhere.
type Network struct {
	opts    Options
	cluster types.ID

	mu     sync.RWMutex
	addrs  map[uint64]string // of all nodes that are or were known
	nodes  map[uint64]*transport
	closed bool
}

var _ node.Network = (*Network)(nil)

// New returns a network without nodes.
func New(opts Options) *Network {
	n := &Network{opts: opts, cluster: types.ID(rand.Uint64()), addrs: make(map[uint64]string), nodes: make(map[uint64]*transport)}
	if opts.Cluster != "" {
		n.cluster = types.ID(xxhash.Sum64String(opts.Cluster))
	}
	maps.Copy(n.addrs, opts.Peers)
	return n
}

// Join implements node.Network: it listens, and returns when peers can connect. It
// fails for id 0, for an id that is connected, for an address that cannot be
// listened on or a certificate that cannot be used, and after Close.
func (n *Network) Join(id uint64, r node.Receiver) (node.Transport, error) {
	if id == raft.None {
		return nil, fmt.Errorf("rafthttp: join: node id 0 is raft's None")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, fmt.Errorf("rafthttp: join node %d: network is closed", id)
	}
	if n.nodes[id] != nil {
		return nil, fmt.Errorf("rafthttp: join node %d: it is connected already", id)
	}
	l, err := net.Listen("tcp", n.listenAddr(id))
	if err != nil {
		return nil, fmt.Errorf("rafthttp: join node %d: %w", id, err)
	}
	t, err := newTransport(n, id, r, l)
	if err != nil {
		return nil, fmt.Errorf("rafthttp: join node %d: %w", id, err)
	}
	if n.opts.Peers[id] == "" {
		n.addrs[id] = l.Addr().String()
	}
	for peer, addr := range n.addrs {
		if peer != id {
			t.know(peer, n.url(addr))
		}
	}
	for _, other := range n.nodes {
		other.know(id, n.url(n.addrs[id]))
	}
	n.nodes[id] = t
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

func (n *Network) url(addr string) string {
	u := url.URL{Scheme: "http", Host: addr}
	if !n.opts.TLS.Empty() {
		u.Scheme = "https"
	}
	return u.String()
}

// Addr is the address of a node, "" if it was never known.
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
	for _, t := range n.nodes {
		t.know(id, n.url(addr))
	}
}

// Settled reports whether both streams from one node of this process to another
// are up: from then on messages arrive in order.
func (n *Network) Settled(from, to uint64) bool {
	n.mu.RLock()
	t := n.nodes[from]
	n.mu.RUnlock()
	return t != nil && t.streams.settled(to)
}

// Close implements node.Network. Transports that are still open are an error;
// they go on working.
func (n *Network) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	if len(n.nodes) > 0 {
		return fmt.Errorf("rafthttp: close network: %d transports are still open", len(n.nodes))
	}
	return nil
}

func (n *Network) leave(t *transport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.nodes, t.id)
}
