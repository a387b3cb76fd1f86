package kvlog

import (
	"fmt"
	"math"

	"go.etcd.io/raft/v3/raftpb"
)

// SaveSnap is SaveSnap of [backends.Storage]. A snapshot older than the current
// one is not stored: the current one replaces it in every respect.
func (s *Storage) SaveSnap(snap *raftpb.Snapshot) error {
	s.snapMu.Lock()
	defer s.snapMu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	if snap.GetMetadata().GetIndex() == 0 {
		return s.fail(fmt.Errorf("%s: save a snapshot without an index", s.dir))
	}
	if snap.GetMetadata().GetIndex() < s.current.metadata.GetIndex() {
		return nil
	}
	if s.cfg.SnapFiles {
		return s.saveFile(snap)
	}
	r := s.newGeneration(snap.GetMetadata(), uint64(len(snap.Data)))
	r.hasData = snap.Data != nil
	step := s.cfg.ChunksPerBatch * s.cfg.ChunkBytes
	w := chunkWriter{s: s, r: r}
	for first, data := uint32(0), snap.Data; len(data) > 0; first += uint32(s.cfg.ChunksPerBatch) {
		n := min(step, len(data))
		if err := w.save(first, data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return s.makeCurrent(r)
}

// newGeneration is the record of a snapshot that is about to be written; snapMu
// is held.
func (s *Storage) newGeneration(meta *raftpb.SnapshotMetadata, bytes uint64) snapRecord {
	s.lastGen++
	return snapRecord{gen: s.lastGen, bytes: bytes, chunkBytes: uint32(s.cfg.ChunkBytes), hasData: true, metadata: meta}
}

// chunkWriter commits the chunks of a snapshot. It encodes into one buffer again
// and again, which [Engine] allows: a large state leaves no garbage of its size.
type chunkWriter struct {
	s   *Storage
	r   snapRecord
	buf []byte
	ops []Op
}

// save commits the chunks from first on, which hold data. After an error the
// writer is not used again.
func (w *chunkWriter) save(first uint32, data []byte) error {
	w.buf, w.ops = w.buf[:0], w.ops[:0]
	for i := first; len(data) > 0; i++ {
		part := data[:min(len(data), int(w.r.chunkBytes))]
		data = data[len(part):]
		start := len(w.buf)
		w.buf = appendChunk(w.buf, w.r.gen, i, part)
		b := w.buf[start:len(w.buf):len(w.buf)]
		w.ops = append(w.ops, Op{Key: b[:chunkKeySize:chunkKeySize], Value: b[chunkKeySize:]})
	}
	return w.s.commit(fmt.Sprintf("save snapshot %d", w.r.metadata.GetIndex()), w.ops, true)
}

// makeCurrent commits the record of a snapshot whose Data is durable, and cuts
// the log where it does not hold the snapshot's entry.
//
// A tail that is too long for one batch goes after the record. A crash between
// the two leaves entries above the snapshot whose terms are lower than its own,
// which Open drops.
func (s *Storage) makeCurrent(r snapRecord) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	index, term := r.metadata.GetIndex(), r.metadata.GetTerm()
	old := s.current.metadata
	keep := s.termOf(index) == term && index <= s.last && index > old.GetIndex() ||
		old != nil && index == old.GetIndex() && term == old.GetTerm()
	last, tail := s.last, s.last
	if !keep {
		last = index
		if step := uint64(s.cfg.DeleteStep); !s.cfg.RangeDelete && step > 0 && tail > index && tail-index > step {
			tail = index // later
		}
	}
	rec, err := appendSnapRecord(nil, r)
	if err != nil {
		return s.fail(fmt.Errorf("%s: encode snapshot %d: %w", s.dir, index, err))
	}
	ops := []Op{{Key: rec[:1], Value: rec[1:]}}
	if !keep {
		ops = s.deletions(ops, index+1, tail)
	}
	ops = append(ops, s.stateOp(last, s.hsBytes))
	if err := s.commit(fmt.Sprintf("make snapshot %d current", index), ops, true); err != nil {
		return err
	}
	s.pending, s.dirty = false, false
	if s.current.metadata != nil {
		s.stale = append(s.stale, s.current)
	}
	// The caller's metadata must not be kept.
	r.metadata = &raftpb.SnapshotMetadata{Index: &index, Term: &term}
	s.current = r
	if keep {
		return nil
	}
	leftover := s.last
	s.last, s.terms = index, nil
	s.cutStored(index + 1)
	if tail < leftover {
		return s.dropAbove(index, leftover)
	}
	return nil
}

// dropAbove deletes the entries above index up to top, from the top down, in
// batches that the engine takes. The state record already says that the log ends
// at index.
func (s *Storage) dropAbove(index, top uint64) error {
	for top > index {
		from := index + 1
		if step := uint64(s.cfg.DeleteStep); !s.cfg.RangeDelete && step > 0 && top-index > step {
			from = top - step + 1
		}
		if err := s.commit("drop a conflicting log", s.deletions(nil, from, top), !s.cfg.Unsynced); err != nil {
			return err
		}
		s.dirty = s.cfg.Unsynced
		top = from - 1
	}
	return nil
}

// Release is Release of [backends.Storage]. What it deletes need not be durably
// gone: a crash brings back entries and chunks that Open knows to be superfluous.
func (s *Storage) Release(snap *raftpb.Snapshot) error {
	s.snapMu.Lock()
	defer s.snapMu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	// Never above what the current snapshot covers.
	index := min(snap.GetMetadata().GetIndex(), s.current.metadata.GetIndex())
	if err := s.releaseEntries(index); err != nil {
		return err
	}
	var kept []snapRecord
	for i, r := range s.stale {
		if s.pins.held(r.gen) {
			kept = append(kept, r) // for the next Release, or the next Open
			continue
		}
		if err := s.drop(r); err != nil {
			s.stale = append(kept, s.stale[i:]...)
			return err
		}
	}
	s.stale = kept
	if s.cfg.Released != nil {
		s.cfg.Released()
	}
	return nil
}

// releaseEntries deletes the entries up to index, oldest first. It holds mu only
// between the batches, so that Save need not wait: Save never comes back to what
// a snapshot covers.
func (s *Storage) releaseEntries(index uint64) error {
	for {
		s.mu.Lock()
		s.forgetTerms(index)
		if len(s.stored) == 0 || s.stored[0].lo > index {
			s.mu.Unlock()
			return nil
		}
		r := span{s.stored[0].lo, min(s.stored[0].hi, index)}
		if step := uint64(s.cfg.DeleteStep); !s.cfg.RangeDelete && step > 0 && r.hi-r.lo >= step {
			r.hi = r.lo + step - 1
		}
		if r.hi == s.stored[0].hi {
			s.stored = s.stored[1:]
		} else {
			s.stored[0].lo = r.hi + 1
		}
		s.mu.Unlock()
		if err := s.commit("release entries", s.deletions(nil, r.lo, r.hi), !s.cfg.Unsynced); err != nil {
			return err
		}
	}
}

// drop deletes the Data of a snapshot that is not current; snapMu is held.
func (s *Storage) drop(r snapRecord) error {
	if r.inFile {
		return s.dropFile(r)
	}
	return s.dropChunks(r)
}

// dropChunks deletes the chunks of a snapshot that is not current.
func (s *Storage) dropChunks(r snapRecord) error {
	if r.chunks() == 0 {
		return nil
	}
	var ops []Op
	if s.cfg.RangeDelete {
		ops = []Op{{Key: chunkKey(r.gen, 0), End: chunkKey(r.gen, math.MaxUint32)}}
	} else {
		for i := range r.chunks() {
			ops = append(ops, Op{Key: chunkKey(r.gen, i)})
		}
	}
	return s.deleteInSteps("release a snapshot", ops)
}

// deleteInSteps commits deletions in batches of DeleteStep.
func (s *Storage) deleteInSteps(what string, ops []Op) error {
	for len(ops) > 0 {
		n := len(ops)
		if s.cfg.DeleteStep > 0 {
			n = min(n, s.cfg.DeleteStep)
		}
		if err := s.commit(what, ops[:n], !s.cfg.Unsynced); err != nil {
			return err
		}
		ops = ops[n:]
	}
	return nil
}
