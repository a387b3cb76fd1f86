package node

import (
	"context"
	"fmt"
	"io"
	"slices"

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

// SnapshotSender is implemented by transports that take the Data of a snapshot as
// a stream. It is optional: over a transport that lacks it a snapshot is sent
// whole, by Send.
type SnapshotSender interface {
	// SendSnapshot sends m, a MsgSnap whose snapshot has no Data, and size bytes
	// of Data from data, which it closes. Like Send it does not block, and it
	// reports the end as Send does. What arrives is the same as from Send.
	SendSnapshot(m *raftpb.Message, data io.ReadCloser, size int64)
}

// SnapshotReceiver is implemented by receivers that take the Data of a snapshot
// as a stream.
type SnapshotReceiver interface {
	// ProcessSnapshot is Process for a MsgSnap whose snapshot has no Data, and
	// size bytes of Data. It returns when it has read them to the end, or with an
	// error, also where ctx ends. It is called on a goroutine of its own, so that
	// nothing waits for it.
	ProcessSnapshot(ctx context.Context, m *raftpb.Message, data io.Reader, size int64) error
}

// DeliverSnapshot gives m and its Data to r: as a stream where r takes one, and
// else in memory. Transports call it. m becomes the receiver's.
func DeliverSnapshot(ctx context.Context, r Receiver, m *raftpb.Message, data io.Reader, size int64) error {
	data = stoppingReader{data, ctx}
	if s, ok := r.(SnapshotReceiver); ok {
		return s.ProcessSnapshot(ctx, m, data, size)
	}
	whole, err := readSnapshot(data, size)
	if err != nil {
		return err
	}
	m.Snapshot = &raftpb.Snapshot{Metadata: m.GetSnapshot().GetMetadata(), Data: whole}
	return r.Process(ctx, m)
}

// stoppingReader ends with its context.
type stoppingReader struct {
	r   io.Reader
	ctx context.Context
}

func (r stoppingReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// readSnapshotStep bounds what is allocated for bytes that were announced and may
// never come.
const readSnapshotStep = 64 << 20

// readSnapshot reads exactly size bytes, after which data must end.
func readSnapshot(data io.Reader, size int64) ([]byte, error) {
	out := make([]byte, 0, min(size, readSnapshotStep))
	for int64(len(out)) < size {
		if len(out) == cap(out) {
			out = slices.Grow(out, int(min(max(int64(len(out)), readSnapshotStep), size-int64(len(out)))))
		}
		n, err := io.ReadFull(data, out[len(out):min(int64(cap(out)), size)])
		out = out[:len(out)+n]
		if err != nil {
			return nil, fmt.Errorf("snapshot ends after %d bytes of %d: %w", len(out), size, err)
		}
	}
	if n, err := io.ReadFull(data, make([]byte, 1)); n > 0 || err != io.EOF {
		return nil, fmt.Errorf("snapshot goes on after %d bytes: %w", size, err)
	}
	return out, nil
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

// Add is s and o together.
func (s TransportStats) Add(o TransportStats) TransportStats {
	return TransportStats{s.Messages + o.Messages, s.Bytes + o.Bytes, s.Dropped + o.Dropped}
}

// Sub is what came to s since o.
func (s TransportStats) Sub(o TransportStats) TransportStats {
	return TransportStats{s.Messages - o.Messages, s.Bytes - o.Bytes, s.Dropped - o.Dropped}
}

// StatsReporter is implemented by transports that count what they send.
type StatsReporter interface {
	Stats() TransportStats
}
