package node

import (
	"fmt"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// apply is what the loop hands to the apply side.
//
// Entries may reach the apply side before they are on the local disk (a majority
// of others has them). So it waits on notifyc before it builds a snapshot on
// them, and it takes the signal only after applying, which is what a second
// signal of the loop waits for.
type apply struct {
	entries  []*raftpb.Entry
	snapshot *raftpb.Snapshot // nil or empty: none
	// notifyc, capacity 1, is signalled when the snapshot is durable, if there
	// is one, and when entries and hard state are. Nil in the async loop, where
	// entries are durable before they are handed over.
	notifyc chan struct{}
	// raftAdvancedc, capacity 1, is signalled after Advance where the entries
	// hold a ConfChange; nil otherwise.
	raftAdvancedc chan struct{}
	// responses go to raft after the entries are applied (async loop).
	responses []*raftpb.Message
}

func newApply(rd raft.Ready) apply {
	ap := apply{entries: rd.CommittedEntries, snapshot: rd.Snapshot, notifyc: make(chan struct{}, 1)}
	if hasConfChange(rd.CommittedEntries) {
		ap.raftAdvancedc = make(chan struct{}, 1)
	}
	return ap
}

func newAsyncApply(m *raftpb.Message) apply {
	return apply{entries: m.GetEntries(), responses: m.GetResponses()}
}

func hasConfChange(ents []*raftpb.Entry) bool {
	for _, e := range ents {
		if e.GetType() != raftpb.EntryNormal {
			return true
		}
	}
	return false
}

// applyLoop is the apply side.
func (n *Node) applyLoop() {
	for {
		select {
		case ap := <-n.applyc:
			if err := n.applyAll(ap); err != nil {
				n.fail(err)
				return
			}
			n.giveWay()
		case req := <-n.snapshots.requests:
			n.startSnapshot(req)
		case <-n.stopc:
			return
		}
	}
}

// applyAll applies one hand-over in order: snapshot, entries, then, once they are
// durable, perhaps a snapshot of the own state.
func (n *Node) applyAll(ap apply) error {
	if !raft.IsEmptySnap(ap.snapshot) {
		if err := n.restore(ap); err != nil {
			return err
		}
	}
	if err := n.applyEntries(ap.entries); err != nil {
		return err
	}
	n.discardPassed()
	if ap.notifyc != nil && !n.waitFor(ap.notifyc) {
		return nil
	}
	if ap.raftAdvancedc != nil && !n.waitFor(ap.raftAdvancedc) {
		return nil
	}
	for _, m := range ap.responses {
		if n.raft.Step(n.ctx, m) != nil {
			return nil // stopping
		}
	}
	if n.applied.get()-n.snapshots.started >= n.cfg.SnapshotEntries {
		n.startSnapshot(snapshotRequest{keep: n.cfg.CatchUpEntries})
	}
	return nil
}

func (n *Node) waitFor(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	case <-n.stopc:
		return false
	}
}

// restore replaces the state machine by a snapshot from the leader, after the
// loop made it durable.
func (n *Node) restore(ap apply) error {
	if !n.waitFor(ap.notifyc) {
		return nil
	}
	meta := ap.snapshot.GetMetadata()
	if meta.GetIndex() <= n.applied.get() {
		return fmt.Errorf("restore: snapshot %d is not newer than applied index %d", meta.GetIndex(), n.applied.get())
	}
	if err := n.restoreState(ap.snapshot); err != nil {
		return fmt.Errorf("restore snapshot %d: %w", meta.GetIndex(), err)
	}
	n.confState = meta.GetConfState()
	n.haveReturned(n.confState)
	n.snapshots.started = meta.GetIndex()
	n.applied.set(meta.GetIndex())
	return nil
}

// applyEntries gives runs of normal entries to the state machine and changes of
// membership to raft. Entries without data are a new leader's own.
func (n *Node) applyEntries(ents []*raftpb.Entry) error {
	if len(ents) == 0 {
		return nil
	}
	if first, applied := ents[0].GetIndex(), n.applied.get(); first > applied+1 {
		return fmt.Errorf("apply: entry %d follows applied index %d", first, applied)
	}
	start := 0
	flush := func(end int) {
		if end > start {
			n.cfg.StateMachine.Apply(ents[start:end])
		}
	}
	for i, e := range ents {
		if e.GetType() == raftpb.EntryNormal && len(e.GetData()) > 0 {
			continue
		}
		flush(i)
		start = i + 1
		if e.GetType() != raftpb.EntryNormal {
			if err := n.applyConfChange(e); err != nil {
				return err
			}
		}
	}
	flush(len(ents))
	n.applied.set(ents[len(ents)-1].GetIndex())
	return nil
}

func (n *Node) applyConfChange(e *raftpb.Entry) error {
	cc, err := confChangeOf(e)
	if err != nil {
		return fmt.Errorf("apply membership change %d: %w", e.GetIndex(), err)
	}
	cs := n.raft.ApplyConfChange(cc)
	if cs == nil {
		return nil // stopping
	}
	n.confState = cs
	n.updateRemoved(cc.AsV2().GetChanges(), cs)
	return nil
}

func confChangeOf(e *raftpb.Entry) (raftpb.ConfChangeI, error) {
	if e.GetType() == raftpb.EntryConfChange {
		cc := &raftpb.ConfChange{}
		return cc, proto.Unmarshal(e.GetData(), cc)
	}
	cc := &raftpb.ConfChangeV2{}
	return cc, proto.Unmarshal(e.GetData(), cc)
}

// appliedIndex is the index that the state machine has reached, and those who
// wait for it.
type appliedIndex struct {
	index   atomic.Uint64
	waiters atomic.Int64
	mu      sync.Mutex
	changed *sync.Cond
	stopped bool
}

func (a *appliedIndex) init() { a.changed = sync.NewCond(&a.mu) }

func (a *appliedIndex) get() uint64 { return a.index.Load() }

func (a *appliedIndex) set(index uint64) {
	a.index.Store(index)
	if a.waiters.Load() > 0 {
		a.mu.Lock() // a waiter is now either before its check or in Wait
		a.changed.Broadcast()
		a.mu.Unlock()
	}
}

// wait returns true when index is applied, false when the node stops first.
func (a *appliedIndex) wait(index uint64) bool {
	if a.index.Load() >= index {
		return true
	}
	a.waiters.Add(1)
	defer a.waiters.Add(-1)
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.index.Load() < index && !a.stopped {
		a.changed.Wait()
	}
	return a.index.Load() >= index
}

func (a *appliedIndex) stop() {
	a.mu.Lock()
	a.stopped = true
	a.mu.Unlock()
	a.changed.Broadcast()
}
