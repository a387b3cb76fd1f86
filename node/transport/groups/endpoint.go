package groups

import (
	"context"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/internal/report"
)

// endpoint is one life of one group on a host.
type endpoint struct {
	host    *host
	id      uint64
	recv    node.Receiver
	reports *report.Reporter
	ctx     context.Context // of Process; ends with Close
	cancel  context.CancelFunc
	props   chan *raftpb.Message

	closing   atomic.Bool
	busy      sync.RWMutex // held shared by process, so that Close can wait
	tasks     sync.WaitGroup
	closeOnce sync.Once
	closeErr  error
}

var _ node.Transport = (*endpoint)(nil)

func newEndpoint(h *host, id uint64, r node.Receiver) *endpoint {
	e := &endpoint{host: h, id: id, recv: r, reports: report.New(r), props: make(chan *raftpb.Message, maxProposals)}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.tasks.Go(e.propose)
	return e
}

// Send implements node.Transport.
func (e *endpoint) Send(msgs []*raftpb.Message) { e.host.send(e, msgs) }

// process hands one message to the group, whose context ends before that of the
// wrapped network: a host ends after its groups.
func (e *endpoint) process(m *raftpb.Message) error {
	e.busy.RLock()
	defer e.busy.RUnlock()
	if e.closing.Load() {
		return context.Canceled
	}
	if m.GetType() == raftpb.MsgProp {
		select {
		case e.props <- m:
			return nil
		default:
			return errNobody // its lane is full
		}
	}
	return e.recv.Process(e.ctx, m)
}

// propose is the lane of proposals.
func (e *endpoint) propose() {
	for {
		select {
		case m := <-e.props:
			_ = e.recv.Process(e.ctx, m) // it may be refused, as any proposal
		case <-e.ctx.Done():
			return
		}
	}
}

// Close implements node.Transport.
func (e *endpoint) Close() error {
	e.closeOnce.Do(func() {
		e.cancel()
		e.busy.Lock() // whoever is in process leaves it
		e.closing.Store(true)
		e.busy.Unlock()
		e.tasks.Wait()
		e.reports.Close()
		e.closeErr = e.host.net.leave(e)
	})
	return e.closeErr
}
