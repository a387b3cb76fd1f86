package backendtest

import (
	"encoding/binary"
	"math/rand/v2"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

// store is an open storage beside the oracle that is told of the same calls.
type store struct {
	*env
	dir string
	s   backends.Storage // nil while closed
	o   *oracle
}

// newStore opens an empty directory and checks that its state is empty.
func (e *env) newStore() *store {
	e.Helper()
	return e.newStoreIn(e.TempDir())
}

func (e *env) newStoreIn(dir string) *store {
	e.Helper()
	st := &store{env: e, dir: dir, o: newOracle()}
	e.Cleanup(func() {
		if st.s != nil {
			st.s.Close()
		}
	})
	state := st.open()
	if !state.Empty() || state.HardState == nil {
		e.Fatalf("Open of an empty directory returned %+v, want an empty state with an empty HardState", state)
	}
	return st
}

func (s *store) open() backends.State {
	s.Helper()
	storage, state, err := s.b.Open(backends.Options{Dir: s.dir})
	if err != nil {
		s.Fatalf("Open: %v; want the state that was saved", err)
	}
	s.s = storage
	return state
}

func (s *store) close() {
	s.Helper()
	storage := s.s
	s.s = nil
	if err := storage.Close(); err != nil {
		s.Fatalf("Close: %v; want success", err)
	}
}

// check closes, reopens and compares what Open returns with the oracle.
func (s *store) check(when string) {
	s.Helper()
	s.close()
	got := s.open()
	if d := differs(got, s.o.state()); d != "" {
		s.Fatalf("%s, after close and reopen: %s", when, d)
	}
	if err := restartable(got); err != nil {
		s.Fatalf("%s, after close and reopen: a raft node cannot start: %v", when, err)
	}
}

func (s *store) save(hs *raftpb.HardState, ents ...*raftpb.Entry) {
	s.Helper()
	if err := s.s.Save(hs, ents); err != nil {
		s.Fatalf("Save(%s, %s): %v; want success", hardState(hs), describe(ents), err)
	}
	s.o.save(hs, ents)
}

// append saves n entries of the given term after the last, and a hard state of
// that term; commit stays.
func (s *store) append(term uint64, n, size int) {
	s.Helper()
	s.save(hs(term, 1, s.o.hs.GetCommit()), run(s.o.lastIndex()+1, term, n, size)...)
}

// commitTo saves a hard state that differs in its commit index only.
func (s *store) commitTo(index uint64) {
	s.Helper()
	s.save(hs(s.o.hs.GetTerm(), s.o.hs.GetVote(), index))
}

func (s *store) saveSnap(sn *raftpb.Snapshot) {
	s.Helper()
	if s.streams {
		s.saveStream(sn)
	} else if err := s.s.SaveSnap(sn); err != nil {
		s.Fatalf("SaveSnap(index %d, %d bytes): %v; want success", sn.GetMetadata().GetIndex(), len(sn.Data), err)
	}
	s.o.saveSnap(sn)
}

// snapshotAt saves a snapshot at an index that the log holds.
func (s *store) snapshotAt(index uint64, size int) *raftpb.Snapshot {
	s.Helper()
	term, err := s.o.ms.Term(index)
	if err != nil {
		s.tb.Fatalf("the case asks for a snapshot at %d: %v", index, err)
	}
	sn := snap(index, term, size)
	s.saveSnap(sn)
	return sn
}

func (s *store) release(sn *raftpb.Snapshot) {
	s.Helper()
	if err := s.s.Release(sn); err != nil {
		s.Fatalf("Release(index %d): %v; want success", sn.GetMetadata().GetIndex(), err)
	}
}

func (s *store) sync() {
	s.Helper()
	if err := s.s.Sync(); err != nil {
		s.Fatalf("Sync: %v; want success", err)
	}
}

// install does what the loop does with a snapshot from the leader: SaveSnap,
// Save, Sync, Release.
func (s *store) install(index, term uint64, size int) {
	s.Helper()
	sn := snap(index, term, size)
	s.saveSnap(sn)
	s.save(hs(max(term, s.o.hs.GetTerm()), s.o.hs.GetVote(), index))
	s.sync()
	s.release(sn)
}

func hs(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: proto.Uint64(term), Vote: proto.Uint64(vote), Commit: proto.Uint64(commit)}
}

// entry is the normal entry at index: its payload follows from index, term and
// size alone, so that whoever reads it back can tell whether it is right.
func entry(index, term uint64, size int) *raftpb.Entry {
	return &raftpb.Entry{
		Index: proto.Uint64(index), Term: proto.Uint64(term),
		Type: raftpb.EntryType_EntryNormal.Enum(), Data: payload(index, term, size),
	}
}

func run(first, term uint64, n, size int) []*raftpb.Entry {
	ents := make([]*raftpb.Entry, n)
	for i := range ents {
		ents[i] = entry(first+uint64(i), term, size)
	}
	return ents
}

func snap(index, term uint64, size int) *raftpb.Snapshot {
	return &raftpb.Snapshot{
		Data: payload(index, ^term, size),
		Metadata: &raftpb.SnapshotMetadata{
			Index: proto.Uint64(index), Term: proto.Uint64(term),
			ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}, Learners: []uint64{4}},
		},
	}
}

// payload is random bytes, which no engine can compress away.
func payload(index, term uint64, size int) []byte {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[0:], index)
	binary.LittleEndian.PutUint64(seed[8:], term)
	b := make([]byte, size)
	rand.NewChaCha8(seed).Read(b)
	return b
}
