package kvlog

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

// Open reads what e holds. Where it fails it closes e; dir names the place in
// errors.
func Open(dir string, e Engine, cfg Config) (*Storage, backends.State, error) {
	if cfg.ChunkBytes == 0 {
		cfg.ChunkBytes = defaultChunkBytes
	}
	cfg.ChunksPerBatch = max(cfg.ChunksPerBatch, 1)
	s := &Storage{
		dir: dir, e: e, cfg: cfg,
		hs: &raftpb.HardState{Term: proto.Uint64(0), Vote: proto.Uint64(0), Commit: proto.Uint64(0)},
	}
	st, err := s.recover()
	if err != nil {
		return nil, backends.State{}, errors.Join(err, e.Close())
	}
	return s, st, nil
}

// found is what the engine holds.
type found struct {
	witness bool // there is a state record
	last    uint64
	hs      *raftpb.HardState
	snap    *raftpb.Snapshot
	entries []*raftpb.Entry // above the snapshot
	garbage []Op            // deletes what no record leads to any more
}

// damage says what is wrong with a record.
func (s *Storage) damage(key []byte, err error) error {
	name := fmt.Sprintf("key %q", key)
	if index, kerr := entryIndex(key); kerr == nil {
		name = fmt.Sprintf("entry %d", index)
	} else if gen, seq, kerr := parseChunkKey(key); kerr == nil {
		name = fmt.Sprintf("chunk %d of snapshot generation %d", seq, gen)
	} else if len(key) == 1 && key[0] == stateKey {
		name = "the hard state"
	} else if len(key) == 1 && key[0] == snapKey {
		name = "the snapshot record"
	}
	return &backends.DamageError{File: s.dir, Err: fmt.Errorf("%s: %w", name, err)}
}

func (s *Storage) recover() (backends.State, error) {
	var f found
	for _, read := range []func(*found) error{s.readState, s.readSnapshot, s.readEntries} {
		if err := read(&f); errors.As(err, new(*backends.DamageError)) {
			return backends.State{}, err
		} else if err != nil {
			return backends.State{}, fmt.Errorf("%s: read the log: %w", s.dir, err)
		}
	}
	if !f.witness && (f.snap != nil || len(f.entries) > 0) {
		return backends.State{}, s.damage([]byte{stateKey}, errors.New("it is missing, but there is a log"))
	}
	stored := len(f.entries)
	st, err := backends.Recover(s.dir, f.hs, f.snap, f.entries)
	if err != nil {
		return backends.State{}, err
	}
	if st.LastIndex() != f.last {
		return backends.State{}, &backends.DamageError{File: s.dir,
			Err: fmt.Errorf("the log ends at index %d, but the last batch left it at %d", st.LastIndex(), f.last)}
	}
	if len(st.Entries) == 0 && stored > 0 {
		// The tail that an installed snapshot conflicted with, from its end.
		for _, e := range slices.Backward(f.entries) {
			f.garbage = append(f.garbage, Op{Key: entryKey(e.GetIndex())})
		}
	}
	return st, s.adopt(st, f)
}

// adopt makes the storage ready to go on from st.
func (s *Storage) adopt(st backends.State, f found) error {
	s.last = st.LastIndex()
	if len(st.Entries) > 0 {
		s.noteStored(st.Entries[0].GetIndex(), s.last)
		s.noteTerms(st.Entries)
	}
	if !raft.IsEmptyHardState(st.HardState) {
		if err := s.setHardState(st.HardState); err != nil {
			return err
		}
	}
	if err := s.deleteInSteps("clean up after a crash", f.garbage); err != nil {
		return err
	}
	return s.settleFiles()
}

func (s *Storage) readState(f *found) error {
	f.hs = &raftpb.HardState{}
	return s.e.Iterate([]byte{stateKey}, []byte{stateKey + 1}, func(key, value []byte) error {
		if len(key) != 1 {
			return s.damage(key, errors.New("unknown key"))
		}
		last, hs, err := decodeState(value)
		if err != nil {
			return s.damage(key, err)
		}
		f.witness, f.last, f.hs = true, last, hs
		return nil
	})
}

// trustedBytes is how much memory Open takes on the word of a record alone. A larger
// snapshot grows with the chunks that are found.
const trustedBytes = 256 << 20

// readSnapshot reads the current snapshot and lists the chunks that are not its own.
func (s *Storage) readSnapshot(f *found) error {
	err := s.e.Iterate([]byte{snapKey}, []byte{snapKey + 1}, func(key, value []byte) error {
		if len(key) != 1 {
			return s.damage(key, errors.New("unknown key"))
		}
		var err error
		if s.current, err = decodeSnapRecord(value); err != nil {
			return s.damage(key, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	r := s.current
	var data []byte
	if r.hasData {
		data = make([]byte, 0, min(r.bytes, trustedBytes))
	}
	var chunks uint32
	s.lastGen = r.gen
	err = s.e.Iterate([]byte{chunkPrefix}, []byte{chunkPrefix + 1}, func(key, value []byte) error {
		gen, _, err := parseChunkKey(key)
		if err != nil {
			return s.damage(key, err)
		}
		if r.metadata == nil || gen != r.gen {
			f.garbage = append(f.garbage, Op{Key: slices.Clone(key)})
			return nil
		}
		_, _, chunk, err := decodeChunk(key, value)
		if err != nil {
			return s.damage(key, err)
		}
		chunks++
		data = append(data, chunk...)
		return nil
	})
	if err != nil || r.metadata == nil {
		return err
	}
	if r.inFile {
		f.snap, err = s.readFile(r)
		return err
	}
	if chunks != r.chunks() || uint64(len(data)) != r.bytes {
		return s.damage([]byte{snapKey}, fmt.Errorf("it names %d chunks of %d bytes in all, and %d of %d bytes are there",
			r.chunks(), r.bytes, chunks, len(data)))
	}
	f.snap = &raftpb.Snapshot{Metadata: proto.Clone(r.metadata).(*raftpb.SnapshotMetadata), Data: data}
	return nil
}

// readEntries reads the log above the snapshot and lists what is below: Release
// was not called, or a crash undid it.
func (s *Storage) readEntries(f *found) error {
	from := s.current.metadata.GetIndex() + 1
	err := s.e.Iterate([]byte{entryPrefix}, entryKey(from), func(key, _ []byte) error {
		f.garbage = append(f.garbage, Op{Key: slices.Clone(key)})
		return nil
	})
	if err != nil {
		return err
	}
	if f.last >= from {
		f.entries = make([]*raftpb.Entry, 0, min(f.last-from+1, 1<<20))
	}
	return s.e.Iterate(entryKey(from), []byte{entryPrefix + 1}, func(key, value []byte) error {
		e, err := decodeEntry(key, value)
		if err != nil {
			return s.damage(key, err)
		}
		f.entries = append(f.entries, e)
		return nil
	})
}
