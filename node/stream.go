package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

// Streamed snapshots.
//
// Raft, its in-memory log and its messages hold snapshots without Data. Data is
// where the storage keeps it, as etcd's database is beside its raft log:
//
//   - A snapshot of the own state is read from the state machine and staged by
//     the storage, in chunks; then it is saved, and only then raft hears of it.
//   - A MsgSnap leaves with a reader of the saved snapshot.
//   - A MsgSnap that arrives is staged, on the transport's goroutine, before raft
//     gets the message. The loop then saves what was staged, where it would have
//     called SaveSnap: the bytes are on disk already, so the loop does not stand
//     still while they are written. What raft cannot want is not staged, what it
//     did not want is discarded.
//   - The state machine restores from a reader of the saved snapshot, which was
//     opened before a Release could remove it.
//
// So each step is as durable, and in the same order, as with SaveSnap.
type streaming struct {
	machine StreamingStateMachine
	storage backends.SnapshotStreamer

	mu     sync.Mutex
	staged map[snapshotID]backends.StagedSnap // received, and not yet saved
	open   map[snapshotID]openSnapshot        // saved, and not yet restored

	waiting atomic.Int64 // len(staged), for who only looks whether there is one
}

type snapshotID struct{ index, term uint64 }

func idOf(meta *raftpb.SnapshotMetadata) snapshotID {
	return snapshotID{meta.GetIndex(), meta.GetTerm()}
}

type openSnapshot struct {
	data io.ReadCloser
	size int64
}

// chooseSnapshots decides how Data travels.
func (n *Node) chooseSnapshots() {
	machine, reads := n.cfg.StateMachine.(StreamingStateMachine)
	storage, writes := n.cfg.Storage.(backends.SnapshotStreamer)
	if n.cfg.Snapshots == SnapshotStream && reads && writes {
		n.stream = &streaming{machine: machine, storage: storage,
			staged: map[snapshotID]backends.StagedSnap{}, open: map[snapshotID]openSnapshot{}}
	}
}

// Snapshots is how this node's snapshots go: plain also where Config asked for
// streams and storage or state machine take none.
func (n *Node) Snapshots() SnapshotMode {
	if n.stream == nil {
		return SnapshotPlain
	}
	return SnapshotStream
}

// stage hands a stream to the storage, which writes what was read while more is
// read. data is not read any more when it returns.
func (n *Node) stage(meta *raftpb.SnapshotMetadata, size int64, data io.Reader) (backends.StagedSnap, error) {
	ahead := newReadAhead(stoppingReader{data, n.ctx})
	defer ahead.Close()
	return n.stream.storage.StageSnap(meta, size, ahead)
}

// streamSnapshot is takeSnapshot for a stream. Staging does not hold up the loop.
func (n *Node) streamSnapshot(index, keep uint64, cs *raftpb.ConfState, data io.Reader, size int64) error {
	term, err := n.log.Term(index)
	if errors.Is(err, raft.ErrCompacted) {
		return nil // a newer one from the leader came first
	}
	if err != nil {
		return fmt.Errorf("create snapshot %d: %w", index, err)
	}
	meta := &raftpb.SnapshotMetadata{Index: proto.Uint64(index), Term: proto.Uint64(term), ConfState: cs}
	staged, err := n.stage(meta, size, data)
	if n.ctx.Err() != nil && err != nil {
		return ErrStopped
	}
	if err != nil {
		return fmt.Errorf("write snapshot %d: %w", index, err)
	}
	n.snapshots.saving.Lock()
	defer n.snapshots.saving.Unlock()
	if index <= n.snapshots.newest.Load() {
		return staged.Discard()
	}
	if err := staged.Save(); err != nil {
		return fmt.Errorf("save snapshot %d: %w", index, err)
	}
	snap, err := n.log.CreateSnapshot(index, cs, nil)
	if err != nil {
		return fmt.Errorf("create snapshot %d: %w", index, err)
	}
	return n.snapshotTaken(snap, keep)
}

// sendSnapshot sends a MsgSnap, with the Data that the storage has.
func (n *Node) sendSnapshot(m *raftpb.Message) {
	if n.stream == nil {
		n.transport.Send([]*raftpb.Message{m})
		return
	}
	meta := m.GetSnapshot().GetMetadata()
	data, size, err := n.stream.storage.OpenSnap(meta)
	if err == nil {
		if s, ok := n.transport.(SnapshotSender); ok {
			s.SendSnapshot(m, data, size)
			return
		}
		var whole []byte
		whole, err = readSnapshot(data, size)
		if err = errors.Join(err, data.Close()); err == nil {
			m.Snapshot = &raftpb.Snapshot{Metadata: meta, Data: whole}
			n.transport.Send([]*raftpb.Message{m})
			return
		}
	}
	// A newer one may have taken its place meanwhile; raft will send that.
	n.cfg.Logger.Warn("cannot send a snapshot", "node", n.cfg.ID, "to", m.GetTo(), "index", meta.GetIndex(), "error", err)
	n.raft.ReportSnapshot(m.GetTo(), raft.SnapshotFailure)
}

// ProcessSnapshot implements [SnapshotReceiver]. Where the Data cannot be stored
// the snapshot is refused, and the node goes on: nothing was acknowledged yet.
func (n *Node) ProcessSnapshot(ctx context.Context, m *raftpb.Message, data io.Reader, size int64) error {
	if n.isRemoved(m.GetFrom()) {
		return fmt.Errorf("node %d: snapshot from removed member %d", n.cfg.ID, m.GetFrom())
	}
	meta := m.GetSnapshot().GetMetadata()
	if meta.GetIndex() <= n.committed.Load() {
		return n.answerOld(ctx, m, data, size)
	}
	if n.stream == nil {
		whole, err := readSnapshot(data, size)
		if err != nil {
			return fmt.Errorf("node %d: receive snapshot %d: %w", n.cfg.ID, meta.GetIndex(), err)
		}
		m.Snapshot = &raftpb.Snapshot{Metadata: meta, Data: whole}
		return n.Process(ctx, m)
	}
	staged, err := n.stage(meta, size, data)
	if err != nil {
		return fmt.Errorf("node %d: receive snapshot %d: %w", n.cfg.ID, meta.GetIndex(), err)
	}
	m.Snapshot = &raftpb.Snapshot{Metadata: meta}
	n.keepStaged(idOf(meta), staged)
	return n.Process(ctx, m)
}

// answerOld has raft answer a snapshot that was sent again, or came late: it ignores
// what is committed here, and says how far that is. The Data is read to its end, as
// the sender expects, and kept nowhere.
func (n *Node) answerOld(ctx context.Context, m *raftpb.Message, data io.Reader, size int64) error {
	index := m.GetSnapshot().GetMetadata().GetIndex()
	if err := n.Process(ctx, m); err != nil {
		return err
	}
	got, err := io.Copy(io.Discard, stoppingReader{data, n.ctx})
	if err == nil && got != size {
		err = fmt.Errorf("%d bytes, announced were %d", got, size)
	}
	if err != nil {
		return fmt.Errorf("node %d: read past snapshot %d: %w", n.cfg.ID, index, err)
	}
	return nil
}

// keepStaged keeps what was received until the loop saves it, in place of what
// was received of the same snapshot before. Stop discards what is left: it closes
// the transport, which calls this, first.
func (n *Node) keepStaged(id snapshotID, staged backends.StagedSnap) {
	n.stream.mu.Lock()
	if before := n.stream.staged[id]; before != nil {
		n.discard(before)
	}
	n.stream.staged[id] = staged
	n.stream.count()
	n.stream.mu.Unlock()
	// The apply side may have passed it meanwhile, and have looked before it was there.
	n.discard(n.stream.takePassed(n.applied.get())...)
}

// count follows a change of staged; mu is held.
func (s *streaming) count() { s.waiting.Store(int64(len(s.staged))) }

// takePassed is what was received and raft did not want: it was of an earlier term, or
// the log held its last entry. Raft takes no snapshot at or below the commit index, and
// what it takes is saved before the state machine gets there; so nothing that is applied
// can still be asked for.
func (s *streaming) takePassed(applied uint64) (passed []backends.StagedSnap) {
	if s.waiting.Load() == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, staged := range s.staged {
		if id.index <= applied {
			passed = append(passed, staged)
			delete(s.staged, id)
		}
	}
	s.count()
	return passed
}

// discardPassed discards what the apply side has passed, on a goroutine of its own: to
// remove a file may take long.
func (n *Node) discardPassed() {
	if n.stream == nil {
		return
	}
	if passed := n.stream.takePassed(n.applied.get()); len(passed) > 0 {
		n.goRun(func() { n.discard(passed...) })
	}
}

func (n *Node) discard(staged ...backends.StagedSnap) {
	for _, s := range staged {
		if err := s.Discard(); err != nil {
			n.cfg.Logger.Warn("a snapshot that is not needed stays on disk until the next start", "node", n.cfg.ID, "error", err)
		}
	}
}

// saveInstalled makes a snapshot from the leader durable (step 5): what was
// staged, or one that came whole.
func (n *Node) saveInstalled(snap *raftpb.Snapshot) error {
	if n.stream == nil || snap.GetData() != nil {
		return n.cfg.Storage.SaveSnap(snap)
	}
	id := idOf(snap.GetMetadata())
	n.stream.mu.Lock()
	staged := n.stream.staged[id]
	delete(n.stream.staged, id)
	n.stream.count()
	n.stream.mu.Unlock()
	if staged == nil {
		return n.cfg.Storage.SaveSnap(snap) // whole, and empty
	}
	return staged.Save()
}

// keepOpen opens a saved snapshot for the apply side, before Release of a later
// one can remove it.
func (n *Node) keepOpen(snap *raftpb.Snapshot) error {
	if n.stream == nil || snap.GetData() != nil {
		return nil
	}
	data, size, err := n.stream.storage.OpenSnap(snap.GetMetadata())
	if err != nil {
		return fmt.Errorf("read snapshot %d: %w", snap.GetMetadata().GetIndex(), err)
	}
	n.stream.mu.Lock()
	n.stream.open[idOf(snap.GetMetadata())] = openSnapshot{data, size}
	n.stream.mu.Unlock()
	return nil
}

// restoreState gives the state machine a snapshot that is durable.
func (n *Node) restoreState(snap *raftpb.Snapshot) error {
	if n.stream == nil || snap.GetData() != nil {
		return n.cfg.StateMachine.Restore(snap.GetData())
	}
	id := idOf(snap.GetMetadata())
	n.stream.mu.Lock()
	saved := n.stream.open[id]
	delete(n.stream.open, id)
	n.stream.mu.Unlock()
	ahead := newReadAhead(saved.data)
	err := n.stream.machine.RestoreStream(ahead, saved.size)
	ahead.Close()
	return errors.Join(err, saved.data.Close())
}

// dropStreams gives back what nobody will save or restore any more. The node's
// goroutines and its transport have ended.
func (n *Node) dropStreams() {
	if n.stream == nil {
		return
	}
	n.stream.mu.Lock()
	defer n.stream.mu.Unlock()
	for _, s := range n.stream.staged {
		n.discard(s)
	}
	for _, o := range n.stream.open {
		_ = o.data.Close() // it was only read
	}
}
