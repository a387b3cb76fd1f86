package node

import (
	"context"
	"errors"
	"slices"
	"sync"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// rawNode drives raft.RawNode under a mutex: whoever has a message steps it
// itself, and the loop is woken where that made a Ready. raft.Node does the same
// on a goroutine of its own, which every message, proposal, Ready and Advance must
// be handed to: three goroutines are woken, one after the other, where here it is
// two. What raft is told, and in which order, is the same.
//
// It is a raft.Node for all but Ready: a Ready must be taken as late as possible,
// so that it holds what came until then, and only the loop knows when that is. So
// the loop waits on readied, and then calls take.
//
// A step is computation only (MemoryStorage answers from memory), so that the
// mutex is held for microseconds.
type rawNode struct {
	id    uint64
	async bool // AsyncStorageWrites: Readys are taken without an Advance between them

	readied chan struct{} // capacity 1: there may be a Ready to take
	done    chan struct{} // closed by Stop

	mu        sync.Mutex
	raw       *raft.RawNode
	stopped   bool
	signaled  bool          // readied holds a token, or the loop has just taken it
	taken     bool          // a Ready was taken and not yet advanced past
	canProp   bool          // a leader is known, and this node was not removed
	removedBy uint64        // the leader under which it was; 0: none
	leader    chan struct{} // closed when canProp becomes true
}

// startRawNode is raft.StartNode, or raft.RestartNode where there are no peers.
func startRawNode(cfg *raft.Config, peers []raft.Peer) (*rawNode, error) {
	raw, err := raft.NewRawNode(cfg)
	if err != nil {
		return nil, err
	}
	r := &rawNode{id: cfg.ID, async: cfg.AsyncStorageWrites, raw: raw,
		readied: make(chan struct{}, 1), done: make(chan struct{}), leader: make(chan struct{})}
	if len(peers) > 0 {
		if err := raw.Bootstrap(peers); err != nil {
			return nil, err
		}
	}
	r.wake()
	return r, nil
}

var _ raft.Node = (*rawNode)(nil)

// wake tells the loop of a Ready, if there is one that it may take; mu is held,
// or nobody else has r yet.
func (r *rawNode) wake() {
	if !r.canProp {
		r.lookForLeader()
	}
	if r.signaled || r.taken || !r.raw.HasReady() {
		return
	}
	r.signaled = true
	r.readied <- struct{}{} // has room: signaled was false
}

// take returns the Ready that readied announced; false where there is none any more.
// Unless Readys are asynchronous, the next one is announced after Advance.
func (r *rawNode) take() (raft.Ready, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.signaled = false
	if r.stopped || r.taken || !r.raw.HasReady() {
		return raft.Ready{}, false
	}
	rd := r.raw.Ready()
	r.taken = !r.async
	if rd.SoftState != nil {
		r.lookForLeader()
	}
	r.wake() // asynchronous: taking may have left some
	return rd, true
}

// lookForLeader lets proposals through or holds them back, as raft.Node does while
// there is no leader, or until there is another one than removed this node; mu is
// held.
func (r *rawNode) lookForLeader() {
	lead := r.raw.BasicStatus().Lead
	if lead != r.removedBy {
		r.removedBy = raft.None
	}
	can := lead != raft.None && lead != r.removedBy
	switch {
	case can && !r.canProp:
		close(r.leader)
	case !can && r.canProp:
		r.leader = make(chan struct{})
	}
	r.canProp = can
}

// do runs f under the mutex and wakes the loop where that gave it something to do.
func (r *rawNode) do(f func()) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return raft.ErrStopped
	}
	f()
	r.wake()
	return nil
}

// Step implements raft.Node. Like there, what raft says of the message is not
// returned, and a proposal waits for a leader.
func (r *rawNode) Step(ctx context.Context, m *raftpb.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.GetType() != raftpb.MsgProp {
		return r.do(func() { _ = r.raw.Step(m) })
	}
	_, err := r.propose(ctx, m)
	return err
}

// propose steps a proposal once raft lets it, and returns what raft says of it.
func (r *rawNode) propose(ctx context.Context, m *raftpb.Message) (verdict, err error) {
	for {
		taken, verdict, leader, err := r.stepProposal(m)
		if taken || err != nil {
			return verdict, err
		}
		select {
		case <-leader:
		case <-r.done:
			return nil, raft.ErrStopped
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// tryPropose steps a proposal; false where it would have to be held back.
func (r *rawNode) tryPropose(m *raftpb.Message) (taken bool, err error) {
	taken, _, _, err = r.stepProposal(m)
	return taken, err
}

// stepProposal steps a proposal unless it must be held back, which ends when leader
// is closed.
func (r *rawNode) stepProposal(m *raftpb.Message) (taken bool, verdict error, leader <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return false, nil, nil, raft.ErrStopped
	}
	if !r.canProp {
		return false, nil, r.leader, nil
	}
	m.From = &r.id
	verdict = r.raw.Step(m)
	if errors.Is(verdict, raft.ErrProposalDropped) {
		// Perhaps the leader was lost, and the loop has not heard of it yet.
		if r.lookForLeader(); !r.canProp {
			return false, nil, r.leader, nil
		}
	}
	r.wake()
	return true, verdict, nil, nil
}

// Propose implements raft.Node.
func (r *rawNode) Propose(ctx context.Context, data []byte) error {
	m := &raftpb.Message{Type: raftpb.MsgProp.Enum(), Entries: []*raftpb.Entry{{Data: data}}}
	verdict, err := r.propose(ctx, m)
	return errors.Join(verdict, err)
}

// ProposeConfChange implements raft.Node.
func (r *rawNode) ProposeConfChange(ctx context.Context, cc raftpb.ConfChangeI) error {
	typ, data, err := raftpb.MarshalConfChange(cc)
	if err != nil {
		return err
	}
	return r.Step(ctx, &raftpb.Message{Type: raftpb.MsgProp.Enum(), Entries: []*raftpb.Entry{{Type: typ.Enum(), Data: data}}})
}

// ApplyConfChange implements raft.Node: nil where it is stopped. A node that the
// change removes holds proposals back until it hears of another leader.
func (r *rawNode) ApplyConfChange(cc raftpb.ConfChangeI) (cs *raftpb.ConfState) {
	_ = r.do(func() {
		cs = r.raw.ApplyConfChange(cc)
		leaves := slices.ContainsFunc(cc.AsV2().GetChanges(), func(c *raftpb.ConfChangeSingle) bool {
			return c.GetType() == raftpb.ConfChangeRemoveNode && c.GetNodeId() == r.id
		})
		if leaves && !slices.Contains(cs.GetVoters(), r.id) && !slices.Contains(cs.GetVotersOutgoing(), r.id) {
			r.removedBy = r.raw.BasicStatus().Lead
			r.lookForLeader()
		}
	})
	return cs
}

// Tick implements raft.Node.
func (r *rawNode) Tick() { _ = r.do(r.raw.Tick) }

// Campaign implements raft.Node.
func (r *rawNode) Campaign(context.Context) (err error) {
	return errors.Join(r.do(func() { err = r.raw.Campaign() }), err)
}

// Ready implements raft.Node: it never has one, see take.
func (r *rawNode) Ready() <-chan raft.Ready { return nil }

// Advance implements raft.Node.
func (r *rawNode) Advance() {
	_ = r.do(func() {
		r.raw.Advance(raft.Ready{}) // which knows what was accepted
		r.taken = false
	})
}

// TransferLeadership implements raft.Node.
func (r *rawNode) TransferLeadership(_ context.Context, _, transferee uint64) {
	_ = r.do(func() { r.raw.TransferLeader(transferee) })
}

// ForgetLeader implements raft.Node.
func (r *rawNode) ForgetLeader(context.Context) (err error) {
	return errors.Join(r.do(func() { err = r.raw.ForgetLeader() }), err)
}

// ReadIndex implements raft.Node.
func (r *rawNode) ReadIndex(ctx context.Context, rctx []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.do(func() { r.raw.ReadIndex(rctx) })
}

// Status implements raft.Node; the zero Status where it is stopped.
func (r *rawNode) Status() (s raft.Status) {
	_ = r.do(func() { s = r.raw.Status() })
	return s
}

// ReportUnreachable implements raft.Node.
func (r *rawNode) ReportUnreachable(id uint64) {
	_ = r.do(func() { r.raw.ReportUnreachable(id) })
}

// ReportSnapshot implements raft.Node.
func (r *rawNode) ReportSnapshot(id uint64, status raft.SnapshotStatus) {
	_ = r.do(func() { r.raw.ReportSnapshot(id, status) })
}

// Stop implements raft.Node.
func (r *rawNode) Stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.stopped {
		r.stopped = true
		close(r.done)
	}
}
