package node

import (
	"context"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Transport carries the messages of one node to its peers.
//
// Messages to one peer arrive in the order in which they were sent, or not at
// all. What must be kept in order is each of four lanes (MsgApp, MsgSnap, MsgProp
// and the rest), as in etcd's rafthttp; raft bears any order between them. Entries, their Data and a snapshot's Data are immutable from the moment
// raft hands them out, so a transport may share them; every other part of a
// message belongs to the transport once it is sent, and the receiver gets a
// message of its own.
type Transport interface {
	// Send never blocks. Each peer's queue is bounded; what does not fit is
	// dropped and reported through Receiver.ReportUnreachable (a MsgSnap through
	// Receiver.ReportSnapshot), as is what could not be delivered.
	Send(msgs []*raftpb.Message)
	// Close stops delivery in both directions and returns when no goroutine of
	// the transport is left. Send after Close drops.
	Close() error
}

// Receiver is the node's side of a transport.
type Receiver interface {
	// Process takes one message from a peer. It may block while the node is
	// busy, must return when ctx ends, and an error means that the node is
	// stopping or refuses the message. The messages of one peer come one at a
	// time within a lane, but different lanes may come at the same time: MsgProp,
	// which raft holds back while there is no leader, must not hold up the votes.
	Process(ctx context.Context, m *raftpb.Message) error
	// ReportUnreachable says that the last send to a peer failed.
	ReportUnreachable(id uint64)
	// ReportSnapshot says how the sending of a MsgSnap to a peer ended. It must
	// be called once for each MsgSnap: raft sends that peer nothing until then.
	ReportSnapshot(id uint64, status raft.SnapshotStatus)
}

// Network is one kind of transport between the nodes of a cluster.
type Network interface {
	// Join connects node id. Messages for it that were sent before are lost.
	// A node that left (Transport.Close) may join again.
	Join(id uint64, r Receiver) (Transport, error)
	// Close frees what the network itself holds; the transports must be closed
	// before.
	Close() error
}

// TransportStats is what a node's transport has sent since it joined.
type TransportStats struct {
	// Messages counts what was accepted for sending.
	Messages int64
	// Bytes counts what went out: encoded bytes with the transport's own framing
	// where it encodes, the payload (entry data, snapshot data, context) where
	// messages are handed over as they are.
	Bytes int64
	// Dropped counts messages that were refused (full queue, no such peer) or
	// accepted and then lost.
	Dropped int64
}

// StatsReporter is implemented by transports that count what they send.
type StatsReporter interface {
	Stats() TransportStats
}
