package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// maxInFlightSnaps bounds the snapshots that wait to be sent (etcd's
// maxInFlightMsgSnap).
const maxInFlightSnaps = 16

// ErrSnapshotBusy is returned by Snapshot while another one is being taken.
var ErrSnapshotBusy = errors.New("another snapshot is being taken")

// snapshots is the state of snapshotting.
type snapshots struct {
	// saving serialises SaveSnap and Release of the loop (a snapshot from the
	// leader) and of the background (a snapshot of the own state), so that an
	// older snapshot never replaces a newer one.
	saving sync.Mutex
	newest atomic.Uint64 // index of the newest durable one
	busy   atomic.Bool   // the background is at work

	started  uint64 // index of the last one begun; the apply side's own
	requests chan snapshotRequest
}

type snapshotRequest struct {
	keep uint64       // entries before the snapshot that stay in memory
	done chan<- error // capacity 1; nil where nobody waits
}

// Snapshot takes a snapshot of the own state now and compacts the log, keeping
// keep entries in memory for slow followers. It returns when the snapshot is
// durable, or ctx or the node ended.
func (n *Node) Snapshot(ctx context.Context, keep uint64) error {
	done := make(chan error, 1)
	select {
	case n.snapshots.requests <- snapshotRequest{keep: keep, done: done}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-n.stopc:
		return ErrStopped
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-n.stopc:
		return ErrStopped
	}
}

// startSnapshot captures the state on the apply side and does the rest in the
// background, one at a time.
func (n *Node) startSnapshot(req snapshotRequest) {
	finish := func(err error) {
		if req.done != nil {
			req.done <- err
		}
	}
	index := n.applied.get()
	if index == 0 {
		finish(errors.New("nothing is applied yet"))
		return
	}
	if !n.snapshots.busy.CompareAndSwap(false, true) {
		finish(ErrSnapshotBusy)
		return
	}
	n.snapshots.started = index
	take := n.capture(index, req.keep)
	n.goRun(func() {
		err := take()
		n.snapshots.busy.Store(false) // before who asked hears of it, and may ask again
		if err != nil && !errors.Is(err, ErrStopped) {
			n.fail(err)
		}
		finish(err)
	})
}

// capture takes the state at index and returns what makes it durable.
func (n *Node) capture(index, keep uint64) func() error {
	confState := n.confState
	if n.stream != nil {
		data, size := n.stream.machine.StreamSnapshot()
		return func() error { return n.streamSnapshot(index, keep, confState, data, size) }
	}
	encode := n.cfg.StateMachine.Snapshot()
	return func() error { return n.takeSnapshot(index, keep, confState, encode) }
}

// takeSnapshot makes the state at index durable, frees the storage below it and
// compacts the in-memory log, keeping a tail for slow followers.
func (n *Node) takeSnapshot(index, keep uint64, cs *raftpb.ConfState, encode func() ([]byte, error)) error {
	data, err := encode()
	if err != nil {
		return fmt.Errorf("encode snapshot %d: %w", index, err)
	}
	n.snapshots.saving.Lock()
	defer n.snapshots.saving.Unlock()
	snap, err := n.log.CreateSnapshot(index, cs, data)
	if errors.Is(err, raft.ErrSnapOutOfDate) {
		return nil // a newer one from the leader came first
	}
	if err != nil {
		return fmt.Errorf("create snapshot %d: %w", index, err)
	}
	if err := n.cfg.Storage.SaveSnap(snap); err != nil {
		return fmt.Errorf("save snapshot %d: %w", index, err)
	}
	return n.snapshotTaken(snap, keep)
}

// snapshotTaken frees what a durable snapshot of the own state makes unnecessary.
func (n *Node) snapshotTaken(snap *raftpb.Snapshot, keep uint64) error {
	index := snap.GetMetadata().GetIndex()
	n.snapshots.newest.Store(index)
	if err := n.cfg.Storage.Release(snap); err != nil {
		return fmt.Errorf("release the log up to snapshot %d: %w", index, err)
	}
	if index > keep {
		if err := n.log.Compact(index - keep); err != nil && !errors.Is(err, raft.ErrCompacted) {
			return fmt.Errorf("compact the in-memory log to %d: %w", index-keep, err)
		}
	}
	if n.cfg.Trace.Snapshotted != nil {
		n.cfg.Trace.Snapshotted(snap)
	}
	return nil
}

// sendSnapshots sends what processMessages redirected, away from the loop: a
// transport may copy or stream a snapshot inside Send.
func (n *Node) sendSnapshots() {
	for {
		select {
		case m := <-n.msgSnapc:
			n.sendSnapshot(m)
		case <-n.stopc:
			return
		}
	}
}
