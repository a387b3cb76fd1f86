package node

import (
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// readStateTimeout bounds how long the loop waits for the reader to take a read
// state (etcd's internalTimeout).
const readStateTimeout = time.Second

// run is the loop. The steps are numbered as in the design:
//
//  1. a tick advances raft's clock;
//  2. Ready with SoftState: update leader, role, and the leader-change count;
//  3. hand {entries, snapshot, notifyc} to the apply side;
//  4. leader: Send first, in parallel with its own disk (thesis 10.2.1);
//  5. snapshot: SaveSnap before Save;
//  6. Save(HardState, Entries);
//  7. snapshot: Sync, signal notifyc, ApplySnapshot, Release;
//  8. Append the entries to raft's in-memory log;
//  9. follower: signal notifyc, wait for the apply side where a ConfChange is
//     pending, then Send;
//  10. leader: signal notifyc; then Advance, and raftAdvancedC where a ConfChange
//     was applied.
func (n *Node) run() {
	ticker := time.NewTicker(n.cfg.Tick)
	defer ticker.Stop()
	handle := n.handleReady
	if n.cfg.Loop == LoopAsync {
		handle = n.handleReadyAsync
	}
	for {
		var rd raft.Ready
		select {
		case <-ticker.C:
			n.raft.Tick() // 1
			continue
		case rd = <-n.raft.Ready():
		case <-n.readied:
			var some bool
			if rd, some = n.raw.take(); !some {
				continue
			}
		case <-n.stopc:
			return
		}
		if err := handle(rd); err != nil {
			n.fail(err)
			return
		}
		n.giveWay()
	}
}

// handleReady takes one Ready through steps 2 to 10. It returns the error of the
// storage; nil also where the node is stopping.
func (n *Node) handleReady(rd raft.Ready) error {
	n.observe(rd) // 2
	ap := newApply(rd)
	if !n.handOver(ap) { // 3
		return nil
	}
	leader := n.isLeader.Load()
	if leader {
		n.transport.Send(n.processMessages(rd.Messages)) // 4
	}
	if err := n.persist(rd.HardState, rd.Entries, rd.Snapshot, ap.notifyc); err != nil { // 5–8
		return err
	}
	if !n.signalSaved(rd, ap, leader) { // 9, 10
		return nil
	}
	n.raft.Advance()
	if ap.raftAdvancedc != nil {
		ap.raftAdvancedc <- struct{}{}
	}
	return nil
}

// observe takes leader, role, term, commit index and read states from a Ready.
func (n *Node) observe(rd raft.Ready) {
	if ss := rd.SoftState; ss != nil {
		if ss.Lead != raft.None && n.lead.Load() != ss.Lead {
			n.leaderChanges.Add(1)
		}
		leader := ss.RaftState == raft.StateLeader
		n.lead.Store(ss.Lead)
		n.isLeader.Store(leader)
		n.heartbeat.Reset()
		if n.cfg.Trace.Leader != nil {
			n.cfg.Trace.Leader(ss.Lead, leader)
		}
	}
	if hs := rd.HardState; !raft.IsEmptyHardState(hs) {
		n.term.Store(hs.GetTerm())
		n.committed.Store(hs.GetCommit())
	}
	if len(rd.ReadStates) == 0 {
		return
	}
	timeout := time.NewTimer(readStateTimeout)
	defer timeout.Stop()
	select {
	case n.readStatec <- rd.ReadStates[len(rd.ReadStates)-1]:
	case <-timeout.C:
		n.cfg.Logger.Warn("nobody took a read state", "node", n.cfg.ID, "timeout", readStateTimeout)
	case <-n.stopc:
	}
}

// handOver gives a part of the log to the apply side; false means stopping.
func (n *Node) handOver(ap apply) bool {
	if n.cfg.Trace.Committed != nil && len(ap.entries) > 0 {
		n.cfg.Trace.Committed(ap.entries)
	}
	select {
	case n.applyc <- ap:
		return true
	case <-n.stopc:
		return false
	}
}

// persist makes one batch durable and only then shows it to raft's in-memory
// log (steps 5 to 8). notifyc is signalled once a snapshot is durable.
//
// SaveSnap comes before Save, so that the hard state never commits what only the
// snapshot holds before the snapshot is there. Sync comes before Release, so that
// the hard state is durable before the log below the snapshot is dropped
// (etcd issue 10219).
func (n *Node) persist(hs *raftpb.HardState, ents []*raftpb.Entry, snap *raftpb.Snapshot, notifyc chan struct{}) error {
	hasSnap := !raft.IsEmptySnap(snap)
	if hasSnap {
		n.snapshots.saving.Lock()
		defer n.snapshots.saving.Unlock()
		if err := n.saveInstalled(snap); err != nil { // 5
			return fmt.Errorf("save snapshot %d: %w", snap.GetMetadata().GetIndex(), err)
		}
	}
	if len(ents) > 0 || !raft.IsEmptyHardState(hs) {
		if err := n.cfg.Storage.Save(hs, ents); err != nil { // 6
			return fmt.Errorf("save %s: %w", describeSave(hs, ents), err)
		}
	}
	if hasSnap {
		if err := n.installed(snap, notifyc); err != nil { // 7
			return err
		}
	}
	if err := n.log.Append(ents); err != nil { // 8
		return fmt.Errorf("append to the in-memory log: %w", err)
	}
	return nil
}

// installed finishes the installation of a snapshot from the leader (step 7).
func (n *Node) installed(snap *raftpb.Snapshot, notifyc chan struct{}) error {
	index := snap.GetMetadata().GetIndex()
	if err := n.cfg.Storage.Sync(); err != nil {
		return fmt.Errorf("sync snapshot %d: %w", index, err)
	}
	if err := n.keepOpen(snap); err != nil {
		return err
	}
	notifyc <- struct{}{} // has room: nothing was sent on it yet
	if err := n.log.ApplySnapshot(snap); err != nil {
		return fmt.Errorf("apply snapshot %d to the in-memory log: %w", index, err)
	}
	n.snapshots.newest.Store(index)
	if err := n.cfg.Storage.Release(snap); err != nil {
		return fmt.Errorf("release the log up to snapshot %d: %w", index, err)
	}
	return nil
}

// signalSaved tells the apply side that what it was handed is durable and, on a
// follower, sends (steps 9 and 10); false means stopping.
func (n *Node) signalSaved(rd raft.Ready, ap apply, leader bool) bool {
	if leader {
		return n.notify(ap.notifyc)
	}
	msgs := n.processMessages(rd.Messages)
	if !n.notify(ap.notifyc) {
		return false
	}
	// A candidate or follower must have applied a change of membership before it
	// sends: otherwise votes of removed members could count. notifyc holds one
	// signal, so a second one waits until the apply side took the first, which
	// it does after applying.
	if ap.raftAdvancedc != nil && !n.notify(ap.notifyc) {
		return false
	}
	n.transport.Send(msgs)
	return true
}

func (n *Node) notify(notifyc chan struct{}) bool {
	select {
	case notifyc <- struct{}{}:
		return true
	case <-n.stopc:
		return false
	}
}

// describeSave names what a failed Save held.
func describeSave(hs *raftpb.HardState, ents []*raftpb.Entry) string {
	if len(ents) == 0 {
		return fmt.Sprintf("hard state (term %d, commit %d)", hs.GetTerm(), hs.GetCommit())
	}
	return fmt.Sprintf("entries %d to %d", ents[0].GetIndex(), ents[len(ents)-1].GetIndex())
}
