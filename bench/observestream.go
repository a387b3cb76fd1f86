package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/node"
)

// The stages of a streamed snapshot overlap: the follower writes while the leader
// reads and the transport carries. They are cut where the last byte is, so that
// they still add up: create ends when the state machine has given its last byte
// (to a storage that writes meanwhile), transfer when the last byte has arrived
// (at a storage that writes meanwhile), and save is what remains after that, the
// sync and the publication.

// streamer is the storage that the node gets: with streams where the engine has
// them.
func (s *observedStorage) streamer() backends.Storage {
	if inner, ok := s.Storage.(backends.SnapshotStreamer); ok {
		return &observedStreamer{s, inner}
	}
	return s
}

// observedStreamer times what observedStorage times, for an engine that takes
// streams.
type observedStreamer struct {
	*observedStorage
	inner backends.SnapshotStreamer
}

func (s *observedStreamer) StageSnap(meta *raftpb.SnapshotMetadata, size int64, data io.Reader) (backends.StagedSnap, error) {
	var last atomic.Int64
	staged, err := s.inner.StageSnap(meta, size, &lastByte{data, s.o, &last})
	if err != nil {
		return nil, err
	}
	if s.o.measuring.Load() {
		s.o.logical.Add(size)
	}
	return &observedStaged{StagedSnap: staged, s: s.observedStorage, staging: s.o.now() - time.Duration(last.Load())}, nil
}

func (s *observedStreamer) OpenSnap(meta *raftpb.SnapshotMetadata) (io.ReadCloser, int64, error) {
	return s.inner.OpenSnap(meta)
}

type observedStaged struct {
	backends.StagedSnap
	s       *observedStorage
	staging time.Duration // after the last byte
}

func (t *observedStaged) Save() error {
	start := t.s.o.now()
	err := t.StagedSnap.Save()
	t.s.snapSave.Store(int64(t.staging + t.s.o.now() - start))
	return err
}

// lastByte notes when a stream gave its last byte.
type lastByte struct {
	io.Reader
	o  *observer
	at *atomic.Int64 // since base, ns
}

func (r *lastByte) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 || errors.Is(err, io.EOF) {
		r.at.Store(int64(r.o.now()))
	}
	return n, err
}

// StreamSnapshot implements node.StreamingStateMachine.
func (s *observedState) StreamSnapshot() (io.Reader, int64) {
	start := s.o.now()
	data, size := s.KV.StreamSnapshot()
	return &createdReader{data, s, start}, size
}

type createdReader struct {
	io.Reader
	s     *observedState
	start time.Duration
}

func (r *createdReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		r.s.create.Store(int64(r.s.o.now() - r.start))
	}
	return n, err
}

// RestoreStream implements node.StreamingStateMachine.
func (s *observedState) RestoreStream(data io.Reader, size int64) error {
	start := s.o.now()
	err := s.KV.RestoreStream(data, size)
	s.noteRestore(start, size)
	return err
}

// observedSender is an observedTransport around one that takes streams.
type observedSender struct {
	*observedTransport
	inner node.SnapshotSender
}

// SendSnapshot implements node.SnapshotSender.
func (t *observedSender) SendSnapshot(m *raftpb.Message, data io.ReadCloser, size int64) {
	if cut := t.w.cut.Load(); cut != 0 && (t.id == cut || m.GetTo() == cut) {
		_ = data.Close() // it was not read
		t.receiver.ReportSnapshot(m.GetTo(), raft.SnapshotFailure)
		return
	}
	t.w.snapSent.Store(int64(t.w.o.now()))
	t.inner.SendSnapshot(m, data, size)
}

// ProcessSnapshot implements node.SnapshotReceiver.
func (r observedReceiver) ProcessSnapshot(ctx context.Context, m *raftpb.Message, data io.Reader, size int64) error {
	if cut := r.w.cut.Load(); cut != 0 && (r.id == cut || m.GetFrom() == cut) {
		return fmt.Errorf("node %d is cut off", cut)
	}
	return node.DeliverSnapshot(ctx, r.Receiver, m, &lastByte{data, r.w.o, &r.w.snapGot}, size)
}
