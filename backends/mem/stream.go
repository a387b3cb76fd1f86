package mem

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
)

var _ backends.SnapshotStreamer = (*storage)(nil)

// chunkBytes is how much of a snapshot is in one piece of memory.
const chunkBytes = 1 << 20

// kept is a snapshot in memory, or one on its way to it.
type kept struct {
	s           *storage
	index, term uint64
	chunks      [][]byte
	readers     int // that are not closed; under storage.mu
}

// StageSnap implements [backends.SnapshotStreamer]; nothing is durable.
func (s *storage) StageSnap(meta *raftpb.SnapshotMetadata, size int64, data io.Reader) (backends.StagedSnap, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	k := &kept{s: s, index: meta.GetIndex(), term: meta.GetTerm()}
	for left := size; left > 0; {
		chunk := s.chunk(min(left, chunkBytes))
		n, err := io.ReadFull(data, chunk)
		k.chunks = append(k.chunks, chunk)
		if left -= int64(n); err != nil {
			return nil, errors.Join(k.wrap(fmt.Errorf("the data ends after %d of %d bytes: %w", size-left, size, err)), k.Discard())
		}
	}
	if n, err := io.ReadFull(data, make([]byte, 1)); n > 0 || err != io.EOF {
		return nil, errors.Join(k.wrap(fmt.Errorf("the data goes on after %d bytes: %w", size, err)), k.Discard())
	}
	return k, nil
}

func (k *kept) wrap(err error) error {
	return fmt.Errorf("mem: %s: snapshot %d: %w", k.s.dir, k.index, err)
}

// chunk returns memory of n bytes, if possible that of a snapshot before: a fresh one
// costs the page faults and the work of the garbage collector, for each snapshot.
func (s *storage) chunk(n int64) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := len(s.spare) - 1; n == chunkBytes && last >= 0 {
		chunk := s.spare[last]
		s.spare = s.spare[:last]
		return chunk
	}
	return make([]byte, n)
}

// reuse takes the memory of a snapshot that nobody reads; s.mu is held.
func (s *storage) reuse(k *kept) {
	for _, chunk := range k.chunks {
		if len(chunk) == chunkBytes {
			s.spare = append(s.spare, chunk)
		}
	}
	k.chunks = nil
}

// Save implements [backends.StagedSnap]. An older snapshot does not replace a newer.
func (k *kept) Save() error {
	s := k.s
	if err := s.err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.newest
	if old != nil && old.index > k.index {
		old = k
	} else {
		s.newest = k
	}
	s.spare = nil // no more than one snapshot's
	if old != nil && old.readers == 0 {
		s.reuse(old)
	}
	return nil
}

// Discard implements [backends.StagedSnap].
func (k *kept) Discard() error {
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	k.s.spare = nil
	k.s.reuse(k)
	return nil
}

// SaveSnap implements [backends.Storage]. It copies what it is given, which is the
// caller's again when it returns.
func (s *storage) SaveSnap(snap *raftpb.Snapshot) error {
	staged, err := s.StageSnap(snap.GetMetadata(), int64(len(snap.GetData())), bytes.NewReader(snap.GetData()))
	if err != nil {
		return err
	}
	return staged.Save()
}

// OpenSnap implements [backends.SnapshotStreamer].
func (s *storage) OpenSnap(meta *raftpb.SnapshotMetadata) (io.ReadCloser, int64, error) {
	if err := s.err(); err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.newest
	if k == nil || k.index != meta.GetIndex() || k.term != meta.GetTerm() {
		return nil, 0, fmt.Errorf("mem: %s: snapshot %d of term %d is not there", s.dir, meta.GetIndex(), meta.GetTerm())
	}
	k.readers++
	readers, size := make([]io.Reader, len(k.chunks)), 0
	for i, chunk := range k.chunks {
		readers[i] = bytes.NewReader(chunk)
		size += len(chunk)
	}
	return &opened{Reader: io.MultiReader(readers...), k: k}, int64(size), nil
}

// opened reads a snapshot, whose memory nobody uses again until it is closed.
type opened struct {
	io.Reader
	k *kept // nil when it is closed
}

// Close implements io.Closer.
func (o *opened) Close() error {
	if o.k != nil {
		o.k.s.mu.Lock()
		o.k.readers--
		o.k.s.mu.Unlock()
		o.k = nil
	}
	return nil
}
