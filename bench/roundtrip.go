package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/node"
)

// A transport's own round trip is measured between two ends that do nothing but
// answer, on a network of the run's kind of which nothing else makes use, before
// the cluster starts: what is between that and the round trips of the cluster is
// what the load costs.
const (
	roundTripWarm  = 50                     // not recorded
	roundTripLeast = 200                    // heartbeats that are
	roundTripMost  = 2000                   // at most, as far as they fit
	roundTripFor   = 100 * time.Millisecond // in this time
	roundTripSetUp = 10 * time.Second       // until the first answer
	roundTripRetry = 20 * time.Millisecond
)

// pingEnd is one end. Answers carry the number of the question, as the context of
// the message.
type pingEnd struct {
	id      uint64
	answers chan uint64 // of the end that asks
	peer    uint64
	tr      node.Transport
	joined  chan struct{} // closed when tr is set
}

// Process implements node.Receiver.
func (p *pingEnd) Process(ctx context.Context, m *raftpb.Message) error {
	if len(m.GetContext()) != 8 {
		return fmt.Errorf("ping: a context of %d bytes", len(m.GetContext()))
	}
	n := binary.LittleEndian.Uint64(m.GetContext())
	if p.answers != nil {
		select {
		case p.answers <- n:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	select {
	case <-p.joined:
		p.send(raftpb.MsgHeartbeatResp, n)
	case <-ctx.Done():
	}
	return ctx.Err()
}

// ReportUnreachable implements node.Receiver.
func (p *pingEnd) ReportUnreachable(uint64) {}

// ReportSnapshot implements node.Receiver.
func (p *pingEnd) ReportSnapshot(uint64, raft.SnapshotStatus) {}

func (p *pingEnd) send(kind raftpb.MessageType, n uint64) {
	p.tr.Send([]*raftpb.Message{{
		Type: kind.Enum(), To: proto.Uint64(p.peer), From: proto.Uint64(p.id), Term: proto.Uint64(1),
		Context: binary.LittleEndian.AppendUint64(nil, n),
	}})
}

// roundTrip measures how long a heartbeat and its answer take. Where nothing
// answers, nothing was measured: whether the cluster can work is its own matter.
func (o One) roundTrip(ctx context.Context) (lat result.Latency, err error) {
	net, err := o.Networks[o.Transport]()
	if err != nil {
		return lat, fmt.Errorf("make the %s network: %w", o.Transport, err)
	}
	asks := &pingEnd{id: 1, peer: 2, answers: make(chan uint64, 1024), joined: make(chan struct{})}
	echo := &pingEnd{id: 2, peer: 1, joined: make(chan struct{})}
	defer func() {
		for _, p := range []*pingEnd{asks, echo} {
			if p.tr != nil {
				err = errors.Join(err, p.tr.Close())
			}
		}
		err = errors.Join(err, net.Close())
	}()
	for _, p := range []*pingEnd{asks, echo} {
		if p.tr, err = net.Join(p.id, p); err != nil {
			return lat, fmt.Errorf("measure the round trip of %s: %w", o.Transport, err)
		}
		close(p.joined)
	}
	ctx, cancel := context.WithTimeout(ctx, roundTripSetUp)
	defer cancel()
	next, ok := asks.connect(ctx, net)
	if !ok {
		return lat, nil
	}
	h := load.NewHistogram()
	start := time.Now()
	for i := 0; i < roundTripWarm+roundTripLeast || i < roundTripWarm+roundTripMost && time.Since(start) < roundTripFor; i++ {
		next++
		sent := time.Now()
		asks.send(raftpb.MsgHeartbeat, next)
		if !asks.await(ctx, next, nil) {
			return result.Latency{}, nil
		}
		if i >= roundTripWarm {
			load.Record(h, time.Since(sent))
		}
	}
	return load.Summary(h, false), nil
}

// connect asks until something answers, and returns the last question's number.
// What is asked until a transport has set its connections up may be lost, or take
// another way.
func (p *pingEnd) connect(ctx context.Context, net node.Network) (last uint64, ok bool) {
	retry := time.NewTicker(roundTripRetry)
	defer retry.Stop()
	settler, _ := net.(interface{ Settled(from, to uint64) bool })
	for ctx.Err() == nil {
		last++
		p.send(raftpb.MsgHeartbeat, last)
		if p.await(ctx, last, retry.C) && (settler == nil || settler.Settled(1, 2) && settler.Settled(2, 1)) {
			return last, true
		}
	}
	return last, false
}

// await takes answers until that to question n; false where ctx ended or given
// ticked before.
func (p *pingEnd) await(ctx context.Context, n uint64, given <-chan time.Time) bool {
	for {
		select {
		case got := <-p.answers:
			if got == n {
				return true
			}
		case <-given:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// fillRoundTrip writes the round trip of a transport that joins several nodes.
func (o One) fillRoundTrip(ctx context.Context, run *result.Run) error {
	if o.Nodes < 2 || o.Workload.Kind == WorkloadSnapshot {
		return nil
	}
	lat, err := o.roundTrip(ctx)
	if err == nil && lat.Count > 0 {
		run.Network = &result.Network{RTT: lat}
	}
	return err
}
